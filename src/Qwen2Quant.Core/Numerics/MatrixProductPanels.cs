using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// The right operand of <see cref="MatrixProduct"/>, a matrix of <see cref="ColumnCount"/> output channels by <see cref="Depth"/> inputs
/// kept as panels of <see cref="MatrixProduct.PanelWidth"/> channels: panel, then input, then channel. Channels beyond the last are zero.
/// </summary>
public sealed unsafe class MatrixProductPanels
{
    private float[] _storage;
    private float* _first;

    public MatrixProductPanels(int columnCount, int depth)
    {
        ColumnCount = columnCount;
        Depth = depth;
        _storage = AllocateAligned(FloatCount(columnCount, depth), out _first);
    }

    /// <summary>Output channels.</summary>
    public int ColumnCount { get; private set; }

    /// <summary>Values of one channel.</summary>
    public int Depth { get; private set; }

    /// <summary>Floats from one panel to the next.</summary>
    public long PanelStride => (long)Depth * MatrixProduct.PanelWidth;

    /// <summary>First float of the first panel, at a multiple of 64 bytes; valid while this object is.</summary>
    public float* Pointer => _first;

    /// <summary>Floats of storage that a matrix takes.</summary>
    public static long FloatCount(long columnCount, long depth) =>
        checked((columnCount + MatrixProduct.PanelWidth - 1) / MatrixProduct.PanelWidth * MatrixProduct.PanelWidth * depth);

    /// <summary>Makes it a matrix of another size in the same storage where that is large enough; channels are undefined until packed.</summary>
    public void Reshape(int columnCount, int depth)
    {
        long floatCount = FloatCount(columnCount, depth);
        if (floatCount + 16 > _storage.Length) _storage = AllocateAligned(floatCount, out _first);
        ColumnCount = columnCount;
        Depth = depth;
    }

    /// <summary>Zeroed floats that do not move, starting at a multiple of 64 bytes; valid while the array is referenced.</summary>
    public static float[] AllocateAligned(long floatCount, out float* first)
    {
        float[] storage = GC.AllocateArray<float>(checked((int)(floatCount + 16)), pinned: true);
        nuint address = (nuint)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(storage));
        first = (float*)((address + 63) & ~(nuint)63);
        return storage;
    }

    /// <summary>Sets channels <paramref name="firstColumn"/> and on from <paramref name="rows"/>, row-major, <see cref="Depth"/> floats each.</summary>
    public void Pack(ReadOnlySpan<float> rows, int firstColumn)
    {
        int rowCount = Depth == 0 ? 0 : rows.Length / Depth;
        ArgumentOutOfRangeException.ThrowIfGreaterThan((long)firstColumn + rowCount, ColumnCount, nameof(firstColumn));
        fixed (float* source = rows)
        {
            for (int row = 0; row < rowCount;)
            {
                int column = firstColumn + row;
                int count = Math.Min(Math.Min(PanelTranspose.Rows, rowCount - row), MatrixProduct.PanelWidth - (column % MatrixProduct.PanelWidth));
                PanelTranspose.Run(source + ((long)row * Depth), Depth, count, Depth, Column(column), Simd.Level);
                row += count;
            }
        }

        GC.KeepAlive(_storage);
    }

    /// <summary>Channel <paramref name="column"/> as it was packed.</summary>
    public void CopyColumn(int column, Span<float> destination)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)column, (uint)ColumnCount, nameof(column));
        float* source = Column(column);
        for (int k = 0; k < Depth; k++) destination[k] = source[(long)k * MatrixProduct.PanelWidth];
        GC.KeepAlive(_storage);
    }

    private float* Column(int column) =>
        _first + (column / MatrixProduct.PanelWidth * PanelStride) + (column % MatrixProduct.PanelWidth);
}
