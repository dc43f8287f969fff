using System.Buffers;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Writes a planned file by slabs of rows, on several threads, and flushes it to the disk.</summary>
public static class PlannedFileFiller
{
    private const long SlabBytes = 4 << 20;

    public static void Write(string folder, PlannedFile file, FillRows fill, int threadCount)
    {
        using IWriteFile output = DiskFileLayer.Instance.Create(Path.Combine(folder, file.Name), file.ByteLength);
        output.Write(0, file.Header);
        Parallel.ForEach(Slabs(file), new ParallelOptions { MaxDegreeOfParallelism = threadCount }, slab =>
        {
            OutputTensor tensor = slab.Planned.Tensor;
            long rowBytes = tensor.Type.ByteCount(tensor.Shape.RowLength);
            int byteCount = checked((int)(slab.RowCount * rowBytes));
            byte[] buffer = ArrayPool<byte>.Shared.Rent(byteCount);
            try
            {
                fill(tensor, slab.FirstRow, buffer.AsSpan(0, byteCount));
                output.Write(slab.Planned.ByteOffset + (slab.FirstRow * rowBytes), buffer.AsSpan(0, byteCount));
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        });
        output.FlushToDisk();
    }

    private static IEnumerable<Slab> Slabs(PlannedFile file)
    {
        foreach (PlannedTensor planned in file.Tensors)
        {
            long rowCount = planned.Tensor.Shape.RowCount;
            long rowsPerSlab = Math.Max(1, SlabBytes / planned.Tensor.Type.ByteCount(planned.Tensor.Shape.RowLength));
            for (long row = 0; row < rowCount; row += rowsPerSlab) yield return new Slab(planned, row, Math.Min(rowsPerSlab, rowCount - row));
        }
    }

    private readonly record struct Slab(PlannedTensor Planned, long FirstRow, long RowCount);
}
