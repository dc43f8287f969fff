using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Publishing;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>
/// Where a batch lies: the manifest and the outputs, and in <c>work</c> statistics, outputs that are not yet proved, and what says how far everything is: a receipt for each task
/// that is done, a lease for each at work, a failure for each that cannot be done. No file of state is rewritten: what is done is the set of receipts.
/// </summary>
internal sealed class BatchFolder(IFileLayer files, string path)
{
    public const string WorkName = "work";

    private string Work => Path.Combine(path, WorkName);
    private string Receipts => Path.Combine(Work, "receipts");
    private string Failures => Path.Combine(Work, "failures");
    private string Placing => Path.Combine(Work, "placing");

    public string Root => path;

    public string Leases => Path.Combine(Work, "leases");

    public string ResultsPath => Path.Combine(path, "results.json");

    /// <summary>Where statistics come to lie, relative to the manifest.</summary>
    public static string StatisticsPath(string id, string depth) => $"{WorkName}/statistics/{id}.{(depth == "gram" ? "gram.safetensors" : "imatrix.gguf")}";

    /// <summary>Where one part of statistics comes to lie.</summary>
    public string PartPath(BatchStatistics statistics, int part) => Absolute($"{WorkName}/statistics/{statistics.Id}.part-{part:000}.{(statistics.Depth == "gram" ? "safetensors" : "gguf")}");

    public string Absolute(string relative) => Path.Combine(path, relative);

    /// <summary>Where an output is made, under its own name.</summary>
    public string BuiltFolder(BatchItem item) => Path.Combine(Work, "built", item.Id);

    /// <summary>The name of what belongs to an output that broke a limit: <c>NAME.rejected</c> and what followed the name.</summary>
    public static string RejectedName(BatchItem item, string entry) => $"{item.Name}.rejected{entry[item.Name.Length..]}";

    public void Create()
    {
        foreach (string folder in (string[])[path, Work, Receipts, Failures, Placing, Leases, Path.Combine(Work, "statistics"), Path.Combine(Work, "built")]) PendingOutput.Guard(folder, () => files.CreateDirectory(folder));
    }

    public void CreateBuilt(BatchItem item) => PendingOutput.Guard(BuiltFolder(item), () => files.CreateDirectory(BuiltFolder(item)));

    public IReadOnlySet<string> TasksWithReceipt() => Names(Receipts);

    public IReadOnlySet<string> TasksWithFailure() => Names(Failures);

    public BatchReceipt? Receipt(string task) => Read(Path.Combine(Receipts, task + ".json"), BatchJson.Default.BatchReceipt);

    public BatchFailure? Failure(string task) => Read(Path.Combine(Failures, task + ".json"), BatchJson.Default.BatchFailure);

    public void Write(BatchReceipt receipt) => Write(Path.Combine(Receipts, receipt.Task + ".json"), receipt, BatchJson.Default.BatchReceipt);

    public void Write(BatchFailure failure) => Write(Path.Combine(Failures, failure.Task + ".json"), failure, BatchJson.Default.BatchFailure);

    public void Write(BatchResults results) => Write(ResultsPath, results, BatchJson.Default.BatchResults);

    public void Forget(string task)
    {
        foreach (string folder in (string[])[Receipts, Failures, Placing]) PendingOutput.Guard(folder, () => files.Delete(Path.Combine(folder, task + ".json")));
    }

    /// <summary>A receipt whose files are on their way to their places.</summary>
    public BatchReceipt? Placed(string task) => Read(Path.Combine(Placing, task + ".json"), BatchJson.Default.BatchReceipt);

    /// <summary>Gives the files of an output their names and then writes the receipt; a run that was stopped in between is finished by calling it again.</summary>
    public void Place(BatchItem item, BatchReceipt receipt)
    {
        string note = Path.Combine(Placing, receipt.Task + ".json"), built = BuiltFolder(item);
        Write(note, receipt, BatchJson.Default.BatchReceipt);
        PendingOutput.Guard(built, () =>
        {
            if (files.DirectoryExists(built))
            {
                foreach (string entry in files.List(built).Where(entry => entry.StartsWith(item.Name, StringComparison.Ordinal))) Replace(Path.Combine(built, entry), Path.Combine(path, receipt.IsRejected ? RejectedName(item, entry) : entry));
                files.FlushDirectory(path);
                files.Delete(built);
            }

            files.Rename(note, Path.Combine(Receipts, receipt.Task + ".json"), overwrite: true);
            files.FlushDirectory(Receipts);
        });
    }

    /// <summary>True while all files of a receipt are there with their lengths.</summary>
    public bool HasFiles(BatchReceipt receipt) => receipt.Files.All(file => files.FileExists(Absolute(file.Path)) && files.IdentifyTyped(Absolute(file.Path)).Length == file.Bytes);

    private void Replace(string from, string to)
    {
        // A folder cannot take the place of another in one step.
        string replaced = Path.Combine(path, $".{Path.GetFileName(to)}.replaced");
        if (files.DirectoryExists(to))
        {
            files.Delete(replaced);
            files.Rename(to, replaced, overwrite: false);
        }

        files.Rename(from, to, overwrite: true);
        files.Delete(replaced);
    }

    private HashSet<string> Names(string folder) => files.DirectoryExists(folder)
        ? [.. files.ListTyped(folder).Where(name => name.EndsWith(".json", StringComparison.Ordinal) && name[0] != '.').Select(name => Path.GetFileNameWithoutExtension(name))]
        : [];

    private T? Read<T>(string file, JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return JsonFile.ReadOrNull(files, file, type);
        }
        catch (QuantException error) when (error.Kind == ErrorKind.InvalidInput)
        {
            // Another worker took it away meanwhile.
            return null;
        }
    }

    private void Write<T>(string file, T document, JsonTypeInfo<T> type) => PendingOutput.PublishSmallFile(files, file, JsonSerializer.SerializeToUtf8Bytes(document, type));
}
