using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Batch;

namespace Qwen2Quant.Cli.Output;

/// <summary>Plans, states and ends of batches for people.</summary>
internal static class BatchText
{
    public static void Write(TextWriter writer, BatchManifest manifest)
    {
        int width = Math.Max(4, manifest.Items.Max(item => item.Name.Length));
        writer.WriteLine($"{"",5} {"name".PadRight(width)}  {"scheme",-28} {"size",10} {"memory",10}  {"time",-8} tasks");
        foreach (BatchItem item in manifest.Items)
        {
            writer.WriteLine($"{item.Index,5} {TextEscape.Escape(item.Name).PadRight(width)}  {TextEscape.Escape(item.Scheme),-28} {Format.Bytes(item.Bytes),10} {Format.Bytes(item.MemoryBytes),10}  {item.TimeClass,-8} {item.Tasks.Count}");
        }

        string[] classes = ["seconds", "minutes", "hours", "days"];
        BatchTask longest = manifest.Tasks.MaxBy(task => Array.IndexOf(classes, task.TimeClass))!;
        writer.WriteLine($"{manifest.Items.Count} items, {manifest.Tasks.Count} tasks, {manifest.Statistics.Count} shared statistics, {Format.Bytes(manifest.Items.Sum(item => item.Bytes))}; the longest task takes {longest.TimeClass} ({longest.Id})");
    }

    public static void Write(TextWriter writer, BatchStatus status)
    {
        int width = Math.Max(4, status.Items.Max(item => item.Name.Length));
        foreach (BatchItemStatus item in status.Items)
        {
            string measured = item.MeanKld is { } divergence ? $"  KL {Format.Number(divergence, "0.00000")}, perplexity {Format.Number(item.Perplexity!.Value, "0.000")}" : "";
            string stage = item.Stage is null ? "" : $" at {item.Stage}";
            string message = item.Message is null ? "" : $"  {TextEscape.Escape(item.Message)}";
            writer.WriteLine($"{item.Index,5} {TextEscape.Escape(item.Name).PadRight(width)}  {item.State + stage,-20} {Format.Bytes(item.Bytes),10} {Format.Number(item.Seconds, "0.0"),8} s{measured}{message}");
        }

        WriteSummary(writer, status);
    }

    public static void WriteSummary(TextWriter writer, BatchStatus status) =>
        writer.WriteLine($"{status.Total} items: {status.Done} done, {status.Rejected} rejected, {status.Failed} failed, {status.Running} running, {status.Waiting} waiting");

    public static void Write(TextWriter writer, BatchResults results)
    {
        foreach (string name in results.Missing) writer.WriteLine($"missing: {TextEscape.Escape(name)}");
        foreach (string name in results.Damaged) writer.WriteLine($"damaged, and to be made again: {TextEscape.Escape(name)}");
        writer.WriteLine($"{results.Total} items: {results.Done} done, {results.Rejected} rejected, {results.Missing.Count} missing, {results.Damaged.Count} damaged");
    }
}
