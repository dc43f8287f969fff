using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>Does one task and leaves its receipt. Everything can be done again: what is there whole is taken, what is missing of what a task needs is made.</summary>
internal sealed class BatchTaskRunner(BatchManifest manifest, BatchFolder folder, string worker)
{
    /// <exception cref="QuantException">The source is not what was planned, is bad, or the disk or memory does not suffice.</exception>
    public BatchReceipt Run(BatchTask task, RunContext context)
    {
        Stopwatch watch = Stopwatch.StartNew();
        BatchReceipt receipt = task.Stage switch
        {
            BatchStage.Statistics => Of(task, [Collect(manifest.StatisticsOf(task.Statistics!), task.Part, context)]),
            BatchStage.Sum => Of(task, [Sum(manifest.StatisticsOf(task.Statistics!), context)]),
            _ => Encode(task, manifest.Items[task.Item!.Value], context),
        };
        receipt = receipt with { Seconds = watch.Elapsed.TotalSeconds };
        if (receipt.Files.Count > 0 && task.Item is { } index) folder.Place(manifest.Items[index], receipt);
        else folder.Write(receipt);
        return receipt;
    }

    private BatchReceipt Of(BatchTask task, IReadOnlyList<BatchFile> files) => new(task.Id, task.Stage, files, 0, worker);

    private BatchReceipt Encode(BatchTask task, BatchItem item, RunContext context)
    {
        if (folder.Placed(task.Id) is { } placed) return placed;
        bool isLast = item.Tasks[^1] == task.Id;
        if (item.Statistics is { } id) RequireStatistics(manifest.StatisticsOf(id), context);
        folder.CreateBuilt(item);
        using QuantizationRequest request = BatchItemRun.Open(manifest, item, folder, context);
        if (task.Parts > 1)
        {
            request.Conversion.RunShare(new Share(task.Part, task.Parts));
            return Of(task, []);
        }

        ConversionReport report = request.Run();
        BatchMeasured measured = new(report.Bytes, report.BitsPerWeight, report.Method);
        IReadOnlyList<string>? broken = null;
        if (task.Stage == BatchStage.Prove)
        {
            EvaluationText text = EvaluationText.Load(context.Files, item.Validate!.Text, Stream.Null);
            if (!task.Id.EndsWith(BatchPlanner.MeasurementId(text, item.Validate, item.FailAbove, item.FailBelow), StringComparison.Ordinal))
            {
                throw new QuantException(ErrorKind.InvalidInput, "the measurement is not what was planned") { Rule = BatchRules.SameWork, Path = item.Validate.Text, Found = "another text, or other limits", Remedy = "Plan the batch again with `batch plan`." };
            }

            report = request.Prove(report, text, item.Validate.Windows());
            measured = measured.With(report.Validation!);
            broken = [.. BatchPlanner.GateOf(item.FailAbove, item.FailBelow).Evaluate(report.Validation).Select(violation => violation.ToString())];
        }

        return Of(task, isLast ? Outputs(item, broken is { Count: > 0 }, context) : []) with { Measured = measured, Broken = broken is { Count: > 0 } ? broken : null };
    }

    /// <summary>The files of a built output under the names that they will have.</summary>
    private List<BatchFile> Outputs(BatchItem item, bool isRejected, RunContext context)
    {
        List<BatchFile> files = [];
        string built = folder.BuiltFolder(item);
        foreach (string entry in context.Files.ListTyped(built).Where(entry => entry.StartsWith(item.Name, StringComparison.Ordinal)))
        {
            string path = Path.Combine(built, entry), name = isRejected ? BatchFolder.RejectedName(item, entry) : entry;
            if (context.Files.DirectoryExists(path)) files.AddRange(context.Files.ListTyped(path).Select(file => Described(Path.Combine(path, file), $"{name}/{file}", context)));
            else files.Add(Described(path, name, context));
        }

        return files;
    }

    private static BatchFile Described(string path, string name, RunContext context) => new(name, context.Files.IdentifyTyped(path).Length, Hash(path, context));

    private static string Hash(string path, RunContext context) => FileHash.Sha256(() => context.Files.OpenTyped(path), context.Cancellation);

    /// <summary>Makes sure that shared statistics are there and what their receipt says; otherwise they are made here.</summary>
    private void RequireStatistics(BatchStatistics statistics, RunContext context)
    {
        string last = manifest.Tasks.Last(task => task.Statistics == statistics.Id).Id;
        if (IsWhole(folder.Receipt(last), context)) return;
        folder.Write(Of(manifest.Task(last), [Sum(statistics, context)]));
    }

    private bool IsWhole(BatchReceipt? receipt, RunContext context) => receipt is not null && folder.HasFiles(receipt) && receipt.Files.All(file => Hash(folder.Absolute(file.Path), context) == file.Sha256);

    /// <summary>Collects one part; the whole where there is one.</summary>
    private BatchFile Collect(BatchStatistics statistics, int part, RunContext context)
    {
        int parts = statistics.Calibration.Partitions;
        string path = parts == 1 ? folder.Absolute(statistics.Path) : folder.PartPath(statistics, part);
        using Checkpoint checkpoint = Checkpoint.Open(statistics.Model, context);
        EvaluationText text = EvaluationText.Load(context.Files, statistics.Calibration.Text, Stream.Null);
        CalibrationOptions windows = statistics.Windows with { Partition = parts == 1 ? null : new Share(part, parts) };
        Make(statistics, checkpoint, path, [], text, windows, context);
        return Described(path, Path.GetRelativePath(folder.Root, path).Replace('\\', '/'), context);
    }

    /// <summary>Adds the parts in the order of their numbers, whoever collected them.</summary>
    private BatchFile Sum(BatchStatistics statistics, RunContext context)
    {
        int parts = statistics.Calibration.Partitions;
        if (parts == 1) return Collect(statistics, 0, context);
        string[] inputs = [.. Enumerable.Range(0, parts).Select(part => folder.PartPath(statistics, part))];
        foreach (BatchTask task in manifest.Tasks.Where(task => task.Statistics == statistics.Id && task.Stage == BatchStage.Statistics))
        {
            if (!IsWhole(folder.Receipt(task.Id), context)) folder.Write(Of(task, [Collect(statistics, task.Part, context)]));
        }

        using Checkpoint checkpoint = Checkpoint.Open(statistics.Model, context);
        string path = folder.Absolute(statistics.Path);
        Make(statistics, checkpoint, path, inputs, null, statistics.Windows, context);
        return Described(path, statistics.Path, context);
    }

    private static void Make(BatchStatistics statistics, Checkpoint checkpoint, string path, IReadOnlyList<string> inputs, EvaluationText? text, CalibrationOptions windows, RunContext context)
    {
        if (statistics.Depth == "gram") new GramCalibration(path, inputs, Force: true).Run(checkpoint, text, windows, context);
        else new CalibrationJob(path, ImatrixFormat.Gguf, inputs, Force: true).Run(checkpoint, text, windows, context);
    }
}
