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

    /// <summary>F32 products of square matrices that stay in the caches, on one thread and on all.</summary>
    public static IReadOnlyList<BenchmarkFigure> MatrixProducts(BenchmarkOptions options, RunContext context)
    {
        float[] left = new float[MatrixSize * MatrixSize], result = new float[MatrixSize * MatrixSize];
        Random random = new(1);
        for (int i = 0; i < left.Length; i++) left[i] = (float)random.NextDouble() - 0.5f;
        MatrixProductPanels right = new(MatrixSize, MatrixSize);
        right.Pack(left, 0);
        const double operations = 2.0 * MatrixSize * MatrixSize * MatrixSize;
        List<BenchmarkFigure> figures = [];
        foreach (int threads in new[] { 1, context.Threads }.Distinct())
        {
            WorkerTeam team = new(threads);
            double seconds = BestOf.Seconds(5 * options.Budget, () => MatrixProduct.Multiply(left, MatrixSize, right, result, team), context.Cancellation);
            figures.Add(new("matmul", $"f32.threads-{threads}", operations / seconds / 1e9, "GFLOP/s"));
        }

        return figures;
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
