using System.Globalization;
using System.Text;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>README.md of a checkpoint folder: front matter as the Hub reads it, what the files hold, and how they were made.</summary>
public static class ModelCard
{
    public const string FileName = "README.md";

    private const string FrontMatterFence = "---";
    private const string MeasureHint = "\nMeasure what the conversion cost with `qwen2quant compare SOURCE THIS_FOLDER --data TEXT`.\n";

    /// <summary>The card of an output folder.</summary>
    /// <param name="sourceName">Name of the source model.</param>
    /// <param name="license">The source's licence as its own card spells it, or null.</param>
    /// <param name="scheme">What was asked for.</param>
    /// <param name="libraryName">As the Hub's front matter spells it.</param>
    /// <param name="commands">Commands that run the folder.</param>
    public static byte[] Write(string sourceName, string? license, string scheme, string version, IReadOnlyList<PlanItem> items, string libraryName = "transformers", IEnumerable<string>? commands = null)
    {
        StringBuilder text = new();
        text.Append(FrontMatterFence).Append('\n');
        if (license is not null) text.Append("license: ").Append(license).Append('\n');
        text.Append("library_name: ").Append(libraryName).Append("\npipeline_tag: text-generation\ntags:\n- qwen2\n").Append(FrontMatterFence).Append("\n\n");
        text.Append(CultureInfo.InvariantCulture, $"# {sourceName}\n\nConverted from {sourceName} by Qwen2Quant {version} (`{scheme}`). `qwen2quant.json` lists every tensor with its error.\n\n");
        text.Append("| type | tensors | parameters | bytes |\n|---|---|---|---|\n");
        foreach (IGrouping<string, PlanItem> group in items.GroupBy(item => item.Target.Tensor.Type.Name, StringComparer.Ordinal))
        {
            text.Append(CultureInfo.InvariantCulture, $"| {group.Key} | {group.Count()} | {group.Sum(item => item.Target.Tensor.Shape.ValueCount)} | {group.Sum(item => item.ByteLength)} |\n");
        }

        if (commands is not null)
        {
            text.Append("\nRun it with one of\n\n```\n");
            foreach (string command in commands) text.Append(command).Append('\n');
            text.Append("```\n");
        }

        text.Append(MeasureHint);
        return Encoding.UTF8.GetBytes(text.ToString());
    }

    /// <summary>The card with what was measured in place of how to measure it.</summary>
    /// <param name="text">Name of the text.</param>
    public static byte[] WithMeasurement(ReadOnlySpan<byte> card, ComparisonResult measured, string text)
    {
        string found = string.Create(
            CultureInfo.InvariantCulture,
            $"\nMeasured against the source on {measured.Tokens} tokens of {text}: mean KL divergence {measured.MeanKld:0.00000} ± {measured.MeanKldStandardError:0.00000}, perplexity {measured.Candidate.Perplexity:0.000} (source {measured.Base.Perplexity:0.000}), the same most likely token at {100 * measured.TopTokenAgreement:0.00} % of positions.\n");
        return Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(card).Replace(MeasureHint, found, StringComparison.Ordinal));
    }

    /// <summary>The value of <c>license</c> in a card's front matter, or null.</summary>
    public static string? FindLicense(ReadOnlySpan<byte> card)
    {
        const string key = "license:";
        string[] lines = Encoding.UTF8.GetString(card).Split('\n', StringSplitOptions.TrimEntries);
        if (lines[0] != FrontMatterFence) return null;
        string? line = lines.Skip(1).TakeWhile(line => line != FrontMatterFence).FirstOrDefault(line => line.StartsWith(key, StringComparison.Ordinal));
        string? value = line?[key.Length..].Trim(' ', '"', '\'');
        return value is { Length: > 0 and <= 100 } && !value.Any(char.IsControl) ? value : null;
    }
}
