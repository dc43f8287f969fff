using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Publishing;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>How far an item is.</summary>
/// <param name="State"><c>done</c>, <c>rejected</c> (a limit was broken), <c>failed</c>, <c>running</c> or <c>waiting</c>.</param>
/// <param name="Stage">Of the first task that is not done; null when all are.</param>
/// <param name="Seconds">Of its tasks that are done, shared statistics not counted.</param>
/// <param name="Message">The limits that it broke, or why it failed.</param>
public sealed record BatchItemStatus(
    int Index, string Id, string Name, string Model, string Scheme, string State, string? Stage, long Bytes, double Seconds, double? BitsPerWeight, double? Perplexity, double? PerplexityStandardError, double? BasePerplexity, double? PerplexityRatio, double? MeanKld, double? MeanKldStandardError,
    double? KldP99, double? TopTokenAgreement, string? Method, string? Message)
{
    /// <summary>As the report shows it.</summary>
    public const string Done = "done", Rejected = "rejected", Failed = "failed", Running = "running", Waiting = "waiting";
}

/// <summary>How far a batch is.</summary>
public sealed record BatchStatus(int Total, int Done, int Failed, int Rejected, int Running, int Waiting, IReadOnlyList<BatchItemStatus> Items)
{
    /// <summary>The items as the report takes them.</summary>
    public IReadOnlyList<BatchRow> Rows() => [.. Items.Select(item => new BatchRow(
        Path.IsPathRooted(item.Model) ? Path.GetFileName(Path.TrimEndingDirectorySeparator(item.Model)) : item.Model, item.Name, item.Scheme, item.State, item.Bytes, item.BitsPerWeight, item.Perplexity, item.BasePerplexity, item.PerplexityRatio, item.PerplexityStandardError, item.MeanKld, item.MeanKldStandardError, item.KldP99, item.TopTokenAgreement, item.Seconds, item.Method, item.Message))];

    /// <summary>Reads it off receipts, failures and leases.</summary>
    public static BatchStatus Of(BatchManifest manifest, string folderPath, IFileLayer files)
    {
        BatchFolder folder = new(files, folderPath);
        IReadOnlySet<string> done = folder.TasksWithReceipt(), failed = folder.TasksWithFailure();
        BatchItemStatus[] items = [.. manifest.Items.Select(item => Of(item))];
        return new BatchStatus(items.Length, Count(BatchItemStatus.Done), Count(BatchItemStatus.Failed), Count(BatchItemStatus.Rejected), Count(BatchItemStatus.Running), Count(BatchItemStatus.Waiting), items);

        int Count(string state) => items.Count(item => item.State == state);

        BatchItemStatus Of(BatchItem item)
        {
            BatchTask[] tasks = [.. item.Tasks.Select(manifest.Task)];
            BatchReceipt?[] receipts = [.. tasks.Where(task => task.Item == item.Index && done.Contains(task.Id)).Select(task => folder.Receipt(task.Id))];
            BatchReceipt? last = done.Contains(item.Tasks[^1]) ? folder.Receipt(item.Tasks[^1]) : null;
            BatchTask? next = last is not null ? null : Array.Find(tasks, task => !done.Contains(task.Id));
            string? broken = Array.Find(item.Tasks.ToArray(), failed.Contains);
            string state = last is not null ? last.IsRejected ? BatchItemStatus.Rejected : BatchItemStatus.Done
                : broken is not null ? BatchItemStatus.Failed
                : tasks.Any(task => !done.Contains(task.Id) && Leases.IsHeld(files, folder.Leases, task.Id)) ? BatchItemStatus.Running : BatchItemStatus.Waiting;
            BatchMeasured? measured = last?.Measured;
            string? message = last is { IsRejected: true } ? string.Join("; ", last.Broken!) : state == BatchItemStatus.Failed ? folder.Failure(broken!)?.Message : null;
            return new BatchItemStatus(
                item.Index, item.Id, item.Name, item.Model, item.Scheme, state, next?.Stage.ToString().ToLowerInvariant(), measured?.Bytes ?? item.Bytes, receipts.Sum(receipt => receipt?.Seconds ?? 0), measured?.BitsPerWeight, measured?.Perplexity, measured?.PerplexityStandardError,
                measured?.BasePerplexity, measured?.PerplexityRatio, measured?.MeanKld, measured?.MeanKldStandardError, measured?.KldP99, measured?.TopTokenAgreement, measured?.Method, message);
        }
    }
}

/// <summary>The end of a batch: what is there, checked against the receipts.</summary>
/// <param name="Damaged">Outputs whose bytes were not those of their receipts; they are forgotten, and the next worker makes them again.</param>
public sealed record BatchResults(string Version, int Total, int Done, int Rejected, IReadOnlyList<string> Missing, IReadOnlyList<string> Damaged, IReadOnlyList<BatchReceipt> Receipts)
{
    /// <summary>Checks every output by its hash, and collects the receipts in <c>results.json</c>.</summary>
    public static BatchResults Merge(BatchManifest manifest, string folderPath, IFileLayer files, CancellationToken cancellation)
    {
        BatchFolder folder = new(files, folderPath);
        List<BatchReceipt> receipts = [];
        List<string> missing = [], damaged = [];
        foreach (BatchItem item in manifest.Items)
        {
            string task = item.Tasks[^1];
            if (folder.Receipt(task) is not { } receipt) missing.Add(item.Name);
            else if (folder.HasFiles(receipt) && receipt.Files.All(file => FileHash.Sha256(() => files.OpenTyped(folder.Absolute(file.Path)), cancellation) == file.Sha256)) receipts.Add(receipt);
            else
            {
                damaged.Add(item.Name);
                folder.Forget(task);
            }
        }

        BatchResults results = new(manifest.Version, manifest.Items.Count, receipts.Count(receipt => !receipt.IsRejected), receipts.Count(receipt => receipt.IsRejected), missing, damaged, receipts);
        folder.Write(results);
        return results;
    }
}
