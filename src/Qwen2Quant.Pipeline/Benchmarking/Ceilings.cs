using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>The machine's limits: arithmetic, memory, disk.</summary>
internal static class Ceilings
{
    private const int MatrixSize = 1024;
    private const int PieceBytes = 1 << 20;

    /// <summary>F32 products of square matrices that stay in the caches.</summary>
    public static BenchmarkFigure MatrixProduct(int threads, BenchmarkOptions options, RunContext context)
    {
        float[] left = new float[MatrixSize * MatrixSize], result = new float[MatrixSize * MatrixSize];
        Random random = new(1);
        for (int i = 0; i < left.Length; i++) left[i] = (float)random.NextDouble() - 0.5f;
        MatrixProductPanels right = new(MatrixSize, MatrixSize);
        right.Pack(left, 0);
        const double operations = 2.0 * MatrixSize * MatrixSize * MatrixSize;
        WorkerTeam team = new(threads);
        double seconds = BestOf.Seconds(5 * options.Budget, () => Core.Numerics.MatrixProduct.Multiply(left, MatrixSize, right, result, team), context.Cancellation);
        return new("matmul", $"f32.threads-{threads}", operations / seconds / 1e9, "GFLOP/s");
    }

    /// <summary>Copying between two buffers that stay in a core's caches, on one thread.</summary>
    public static BenchmarkFigure CachedCopy(int byteCount, BenchmarkOptions options, RunContext context)
    {
        const int repeats = 32;
        byte[] source = new byte[byteCount], target = new byte[byteCount];
        double seconds = BestOf.Seconds(options.Budget, () =>
        {
            for (int i = 0; i < repeats; i++) source.CopyTo(target.AsSpan());
        }, context.Cancellation);
        return new("memory", "cached-copy.threads-1", 2.0 * repeats * byteCount / seconds / 1e9, "GB/s");
    }

    /// <summary>Copying between two buffers on all threads; bytes read and bytes written both count, as STREAM's copy counts them.</summary>
    public static BenchmarkFigure MemoryCopy(BenchmarkOptions options, RunContext context)
    {
        byte[] source = new byte[options.MemoryBytes], target = new byte[options.MemoryBytes];
        source.AsSpan().Fill(1);
        int pieces = (int)((options.MemoryBytes + PieceBytes - 1) / PieceBytes);
        WorkerTeam team = new(context.Threads);
        double seconds = BestOf.Seconds(5 * options.Budget, () => team.Run(pieces, piece =>
        {
            int first = piece * PieceBytes;
            int length = Math.Min(PieceBytes, source.Length - first);
            source.AsSpan(first, length).CopyTo(target.AsSpan(first, length));
        }), context.Cancellation);
        return new("memory", $"copy.threads-{context.Threads}", 2.0 * options.MemoryBytes / seconds / 1e9, "GB/s");
    }

    /// <summary>Writing a new file and flushing it to the disk.</summary>
    public static BenchmarkFigure DiskWrite(BenchmarkOptions options, RunContext context)
    {
        string path = Path.Combine(Path.GetFullPath(options.Folder), $".qwen2quant-bench-{Environment.ProcessId}");
        byte[] piece = new byte[PieceBytes];
        new Random(1).NextBytes(piece);
        try
        {
            double seconds = BestOf.Seconds(TimeSpan.Zero, () =>
            {
                context.Files.Delete(path);
                using IWriteFile file = context.Files.Create(path, options.DiskBytes);
                for (long offset = 0; offset < options.DiskBytes; offset += PieceBytes) file.Write(offset, piece.AsSpan(0, (int)Math.Min(PieceBytes, options.DiskBytes - offset)));
                file.FlushToDisk();
            }, context.Cancellation);
            return new("disk", "write", options.DiskBytes / seconds / 1e9, "GB/s");
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw PendingOutput.Failed(path, error);
        }
        finally
        {
            context.Files.Delete(path);
        }
    }
}
