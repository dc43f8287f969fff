using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Reports;

namespace Qwen2Quant.Cli.Output;

/// <summary>What a conversion did, or would do, as text.</summary>
internal static class ConversionText
{
    public static void Write(TextWriter output, ConversionReport report)
    {
        if (report.DryRun)
        {
            output.WriteLine($"plan for {TextEscape.Escape(report.Output)} ({report.Scheme}), nothing was written:");
            foreach (TensorReport tensor in report.Tensors)
            {
                string substituted = tensor.Type == tensor.RequestedType ? "" : $"  instead of {tensor.RequestedType}";
                output.WriteLine($"  {TextEscape.Escape(tensor.Name),-44} {tensor.Type,-6} {Format.Bytes(tensor.Bytes),10}{substituted}");
            }
        }

        foreach (IGrouping<string, TensorReport> group in report.Tensors.GroupBy(tensor => tensor.Type, StringComparer.Ordinal))
        {
            double[] errors = [.. group.Where(tensor => tensor.RelativeError is not null && tensor.Solver != "copy").Select(tensor => tensor.RelativeError!.Value)];
            string error = report.DryRun ? "" : errors.Length == 0 || errors.Max() == 0 ? ", exact" : $", relative error {Format.Number(errors.Min(), "0.00000")} to {Format.Number(errors.Max(), "0.00000")}";
            output.WriteLine($"  {group.Key,-6} {group.Count(),5} tensors  {Format.Bytes(group.Sum(tensor => tensor.Bytes)),10}{error}");
        }

        output.WriteLine($"{TextEscape.Escape(report.Output)}: {report.Bytes} bytes, {Format.Number(report.BitsPerWeight, "0.00")} bits per weight"
            + (report.DryRun ? "" : $", {Format.Number(report.Seconds, "0.0")} s, {Format.Bytes(report.PeakMemoryBytes)} of memory at most"));
        if (report.Validation is not null) ComparisonText.Write(output, report.Validation, withWorst: false);
    }
}
