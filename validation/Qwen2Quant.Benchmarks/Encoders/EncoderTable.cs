using System.Globalization;
using System.Text;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Benchmarks.Encoders;

/// <summary>One effort against ggml: ratios of the error, of the error under ggml's own weights, and how many times faster.</summary>
public sealed record EffortFigures(double ErrorRatio, double OwnErrorRatio, double? SpeedRatio);

/// <summary>One type on one set of rows.</summary>
public sealed record EncoderComparison(string Type, bool HasImportance, string Rows, IReadOnlyList<EffortFigures> Efforts, double? GgmlMegaValuesPerSecond);

/// <summary>Mean and worst ratios of each type over all rows.</summary>
public sealed class EncoderTable(IReadOnlyList<Effort> efforts)
{
    private readonly List<EncoderComparison> _all = [];

    public EncoderComparison Add(EncoderComparison comparison)
    {
        _all.Add(comparison);
        return comparison;
    }

    public string ToMarkdown()
    {
        StringBuilder text = new();
        text.Append("| type | importance | tensors |").AppendJoin("", efforts.Select(effort => { string name = effort.ToString().ToLowerInvariant(); return $" {name}: mean | worst | own weights | faster |"; })).Append('\n');
        text.Append("|---|---|---|").Append(string.Concat(Enumerable.Repeat("---|---|---|---|", efforts.Count))).Append('\n');
        foreach (IGrouping<(string Type, bool HasImportance), EncoderComparison> group in _all.GroupBy(comparison => (comparison.Type, comparison.HasImportance)))
        {
            text.Append(CultureInfo.InvariantCulture, $"| {group.Key.Type} | {(group.Key.HasImportance ? "yes" : "no")} | {group.Count()} |");
            for (int i = 0; i < efforts.Count; i++)
            {
                EffortFigures[] figures = [.. group.Select(comparison => comparison.Efforts[i])];
                double[] speeds = [.. figures.Where(figure => figure.SpeedRatio is not null).Select(figure => figure.SpeedRatio!.Value)];
                text.Append(CultureInfo.InvariantCulture, $" {figures.Average(figure => figure.ErrorRatio):f4} | {figures.Max(figure => figure.ErrorRatio):f4} | {figures.Average(figure => figure.OwnErrorRatio):f4} |");
                text.Append(speeds.Length == 0 ? " |" : string.Create(CultureInfo.InvariantCulture, $" {speeds.Average():f1}x |"));
            }

            text.Append('\n');
        }

        return text.ToString();
    }
}
