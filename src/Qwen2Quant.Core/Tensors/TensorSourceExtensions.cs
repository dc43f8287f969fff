using System.Buffers;

namespace Qwen2Quant.Core.Tensors;

public static class TensorSourceExtensions
{
    /// <summary>Raw bytes decoded at a time: with their floats they stay within a core's second-level cache.</summary>
    private const int ChunkBytes = 256 << 10;

    /// <summary>Decodes rows into <paramref name="destination"/>, row-major, <paramref name="rowCount"/> x <see cref="Shape.RowLength"/> floats.</summary>
    /// <exception cref="Errors.QuantException">The type has no decoder: nothing is read. Or reading fails.</exception>
    public static void ReadRows(this ITensorSource source, TensorEntry entry, long firstRow, int rowCount, Span<float> destination)
    {
        if (!entry.Type.CanDecode) throw entry.Type.CannotDecode(entry.Name);
        int rowLength = checked((int)entry.Shape.RowLength);
        long rowBytes = entry.Type.ByteCount(rowLength);
        int rowsPerChunk = (int)Math.Clamp(ChunkBytes / Math.Max(rowBytes, 1), 1, rowCount == 0 ? 1 : rowCount);
        byte[] raw = ArrayPool<byte>.Shared.Rent(checked((int)(rowsPerChunk * rowBytes)));
        try
        {
            for (int row = 0; row < rowCount; row += rowsPerChunk)
            {
                int rows = Math.Min(rowsPerChunk, rowCount - row);
                Span<byte> bytes = raw.AsSpan(0, (int)(rows * rowBytes));
                source.ReadRaw(entry, (firstRow + row) * rowBytes, bytes);
                entry.Type.Decode(bytes, destination.Slice(row * rowLength, rows * rowLength));
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(raw);
        }
    }

    /// <summary>The whole tensor as floats.</summary>
    public static float[] ReadAll(this ITensorSource source, TensorEntry entry)
    {
        float[] values = new float[checked((int)entry.Shape.ValueCount)];
        source.ReadRows(entry, 0, checked((int)entry.Shape.RowCount), values);
        return values;
    }
}
