using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Reports;

namespace Qwen2Quant.Cli.Output;

/// <summary>What a calibration collected, as text.</summary>
internal static class CalibrationText
{
    public static void Write(TextWriter output, CalibrationReport report)
    {
        if (report is { Perplexity: { } perplexity, StandardError: { } error, TokensPerSecond: { } speed })
        {
            output.WriteLine($"perplexity of the text {Format.Number(perplexity, "0.0000")} ± {Format.Number(error, "0.0000")}, {report.Tokens} tokens at {Format.Number(speed, "0")} tokens/s");
        }

        ActivationText.Write(output, report.Activations);
        output.WriteLine($"{TextEscape.Escape(report.Output)}: {report.Bytes} bytes, {report.Entries} tensors, {report.Chunks} windows of {report.Context} tokens, {Format.Number(report.Seconds, "0.0")} s");
    }
}
