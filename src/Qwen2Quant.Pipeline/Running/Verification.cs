using System.Buffers;
using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Publishing;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>Reads every value of an opened model, and hashes the files whose hash is known; the rules of its headers were checked when it was opened.</summary>
public static class Verification
{
    private const int ChunkValues = 256 << 10;

    /// <summary>Returns the seconds it took.</summary>
    /// <exception cref="QuantException">A value is not finite (tensor, row and column are named), or a file does not have its hash.</exception>
    public static double Run(Checkpoint checkpoint, RunContext context)
    {
        Stopwatch watch = Stopwatch.StartNew();
        List<(TensorEntry Entry, long FirstRow, int RowCount)> slabs = [];
        foreach (TensorEntry entry in checkpoint.Raw.Tensors)
        {
            int rowsPerSlab = (int)Math.Clamp(ChunkValues / Math.Max(1, entry.Shape.RowLength), 1, int.MaxValue);
            for (long row = 0; row < entry.Shape.RowCount; row += rowsPerSlab)
            {
                slabs.Add((entry, row, (int)Math.Min(rowsPerSlab, entry.Shape.RowCount - row)));
            }
        }

        using IProgressTask progress = context.Progress.Start("Verifying", checkpoint.Raw.Tensors.Sum(entry => entry.ByteLength), "B");
        Workers.Run(context.Threads, slabs.Count, () => 0, (index, _) =>
        {
            (TensorEntry entry, long firstRow, int rowCount) = slabs[index];
            int rowLength = checked((int)entry.Shape.RowLength);
            float[] buffer = ArrayPool<float>.Shared.Rent(rowCount * rowLength);
            Span<float> values = buffer.AsSpan(0, rowCount * rowLength);
            checkpoint.Raw.ReadRows(entry, firstRow, rowCount, values);
            RequireFinite(entry, firstRow, rowLength, values);
            ArrayPool<float>.Shared.Return(buffer);
            progress.Advance(entry.Type.ByteCount(values.Length));
        }, context.Cancellation);
        foreach ((string path, string expected, Func<IReadFile> open) in checkpoint.KnownHashes()) RequireHash(path, expected, open, context.Cancellation);
        return watch.Elapsed.TotalSeconds;
    }

    private static void RequireHash(string path, string expected, Func<IReadFile> open, CancellationToken cancellation)
    {
        string found = FileHash.Sha256(open, cancellation);
        if (found == expected) return;
        throw new QuantException(ErrorKind.Verification, "the file does not have the SHA-256 that the cache names it by")
        {
            Path = path,
            Found = found,
            Expected = expected,
            Remedy = "Delete the blob and download it again.",
        };
    }

    /// <summary>Refuses NaN and infinities among decoded rows.</summary>
    internal static void RequireFinite(TensorEntry entry, long firstRow, int rowLength, ReadOnlySpan<float> values)
    {
        int index = FiniteCheck.FindNonFinite(values);
        if (index < 0) return;
        throw new QuantException(ErrorKind.Numeric, "a weight is not finite")
        {
            Rule = float.IsNaN(values[index]) ? NumericRules.NoNan : NumericRules.NoInfinity,
            Tensor = entry.Name,
            Found = $"{values[index]} in row {firstRow + (index / rowLength)}, column {index % rowLength}",
            Remedy = "The checkpoint is damaged; download it again.",
        };
    }
}
