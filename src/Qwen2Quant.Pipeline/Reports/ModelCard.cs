using System.Globalization;
using System.Text;
using Qwen2Quant.Pipeline.Planning;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>README.md of a checkpoint folder: front matter as the Hub reads it, what the files hold, and how they were made.</summary>
public static class ModelCard
{
    public const string FileName = "README.md";

    private const string FrontMatterFence = "---";

    /// <summary>The card of an output folder.</summary>
    /// <param name="sourceName">Name of the source model.</param>
    /// <param name="license">The source's licence as its own card spells it, or null.</param>
    /// <param name="scheme">What was asked for.</param>
    public static byte[] Write(string sourceName, string? license, string scheme, string version, IReadOnlyList<PlanItem> items)
    {
        StringBuilder text = new();
        text.Append(FrontMatterFence).Append('\n');
        if (license is not null) text.Append("license: ").Append(license).Append('\n');
        text.Append("library_name: transformers\npipeline_tag: text-generation\ntags:\n- qwen2\n").Append(FrontMatterFence).Append("\n\n");
        text.Append(CultureInfo.InvariantCulture, $"# {sourceName}\n\nConverted from {sourceName} by Qwen2Quant {version} (`{scheme}`). `qwen2quant.json` lists every tensor with its error.\n\n");
        text.Append("| type | tensors | parameters | bytes |\n|---|---|---|---|\n");
        foreach (IGrouping<string, PlanItem> group in items.GroupBy(item => item.Target.Tensor.Type.Name, StringComparer.Ordinal))
        {
            text.Append(CultureInfo.InvariantCulture, $"| {group.Key} | {group.Count()} | {group.Sum(item => item.Target.Tensor.Shape.ValueCount)} | {group.Sum(item => item.ByteLength)} |\n");
        }

        text.Append("\nMeasure what the conversion cost with `qwen2quant compare SOURCE THIS_FOLDER --data TEXT`.\n");
        return Encoding.UTF8.GetBytes(text.ToString());
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
