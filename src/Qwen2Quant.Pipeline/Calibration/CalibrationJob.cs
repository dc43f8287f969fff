using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>Makes a file of statistics: collected on a text, added to those of other files, or both.</summary>
/// <param name="Target">Path of the output.</param>
/// <param name="Inputs">Files whose statistics are added.</param>
/// <param name="Force">Replaces an existing output.</param>
/// <param name="Strict">Refuses experts that saw no tokens.</param>
public sealed record CalibrationJob(string Target, ImatrixFormat Format, IReadOnlyList<string> Inputs, bool Force = false, bool Strict = false)
{
    /// <param name="text">Null adds the inputs only.</param>
    /// <exception cref="QuantException">An input is refused, the disk fails, or the output does not read back; nothing is then published.</exception>
    public CalibrationReport Run(Checkpoint checkpoint, EvaluationText? text, CalibrationOptions options, RunContext context)
    {
        Stopwatch watch = Stopwatch.StartNew();
        string[] modelPaths = checkpoint.Location.Kind == ModelKind.BuiltIn ? [] : [.. checkpoint.WeightPaths, checkpoint.Location.Path];
        PendingOutput.CheckTarget(context.Files, Target, OutputKind.File, Force, [.. modelPaths, .. Inputs], plannedBytes: 0);
        List<(Imatrix Imatrix, string Path)> parts = [];
        foreach (string input in Inputs)
        {
            Imatrix read = ImatrixReader.Read(context.Files, input, context.ReadOptions);
            Importance.CheckModel(read, checkpoint.Tensors.Catalogue, input, context);
            parts.Add((read, input));
        }

        PerplexityResult? perplexity = null;
        if (text is not null)
        {
            (Imatrix collected, perplexity) = DiagonalCalibration.Collect(checkpoint, text, options, context);
            parts.Add((collected, text.Name));
        }

        Imatrix whole = Imatrix.Merge(parts);
        if (whole.ChunkSize == 0) whole = whole with { ChunkSize = Imatrix.DefaultChunkSize };
        Importance.ReportUnseenExperts(whole, Strict, null, context);
        checkpoint.RequireUnchanged();
        long bytes = Publish(whole, context);
        long tokens = perplexity is null ? 0 : (long)perplexity.Chunks * perplexity.Context;
        return new CalibrationReport(
            Conversion.Version,
            checkpoint.Location.DisplayName,
            Target,
            Format == ImatrixFormat.Gguf ? "gguf" : "dat",
            "diagonal",
            text?.Name,
            Inputs,
            bytes,
            whole.Entries.Count,
            whole.ChunkCount,
            whole.ChunkSize,
            tokens,
            perplexity?.Perplexity,
            perplexity?.StandardError,
            watch.Elapsed.TotalSeconds,
            perplexity is null ? null : tokens / perplexity.Seconds,
            perplexity?.Activations,
            context.Events.Events);
    }

    private long Publish(Imatrix imatrix, RunContext context)
    {
        byte[] bytes = ImatrixWriter.Write(imatrix, Format, Path.GetFileName(Target));
        using PendingOutput output = PendingOutput.Begin(context.Files, Target, OutputKind.File);
        output.Create(new PlannedFile(Path.GetFileName(Target), bytes, bytes.Length, []));
        output.Flush();
        Verify(imatrix, ImatrixReader.Read(context.Files, output.TemporaryPath, context.ReadOptions));
        context.Cancellation.ThrowIfCancellationRequested();
        output.Publish();
        return bytes.Length;
    }

    private void Verify(Imatrix meant, Imatrix read)
    {
        // Means are rounded on their way through the older format.
        const float tolerance = 1e-5f;
        if (meant.Entries.Count == read.Entries.Count)
        {
            ImatrixEntry? wrong = meant.Entries.Zip(read.Entries).FirstOrDefault(pair => !Agree(pair.First, pair.Second)).First;
            if (wrong is null) return;
        }

        throw new QuantException(ErrorKind.Verification, "the output does not read back as written") { Path = Target, Remedy = "Check the disk." };

        static bool Agree(ImatrixEntry a, ImatrixEntry b) =>
            a.Name == b.Name && a.Sums.Length == b.Sums.Length && a.MeanSquares().Zip(b.MeanSquares()).All(pair => Math.Abs(pair.First - pair.Second) <= tolerance * pair.First);
    }
}
