using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>
/// The symmetric sums of <c>x x^T</c> over rows x of activations: the Hessian of a linear layer's squared output error (GPTQ, Frantar et al. 2022, section 3).
/// Rows are gathered <see cref="FoldRows"/> at a time, multiplied in single precision and added in double, on and below the diagonal only. The bits depend on
/// the rows and their order, not on threads nor on how rows are cut into calls.
/// </summary>
public sealed unsafe class GramMatrix
{
    /// <summary>Rows summed in single precision, 256 to a chain, before they are added in double.</summary>
    public const int FoldRows = GatheredRows.Capacity;

    // Eight tiles of 12 rows; a transposed block of them takes 384 KiB.
    private const int BlockSize = 96;

    // 96 by 512 sums, 192 KiB, stay in a second-level cache until they are added.
    private const int ColumnChunk = 512;

    [ThreadStatic]
    private static NativeFloats? _scratch;

    private readonly double[][] _blocks;
    private readonly GatheredRows _pending;

    /// <param name="width">Channels: values of one row, n.</param>
    public GramMatrix(int width)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        Width = width;
        _blocks = new double[(width + BlockSize - 1) / BlockSize][];
        for (int block = 0; block < _blocks.Length; block++) _blocks[block] = new double[RowsOf(block) * (long)EndOf(block)];
        _pending = new GatheredRows(width);
    }

    public int Width { get; }

    /// <summary>Rows (tokens) added.</summary>
    public long RowCount { get; private set; }

    /// <summary>
    /// Bytes that a matrix of that width takes: 8 for each pair of channels, as a single-precision sum and its carry would, and the gathered rows.
    /// 114 MB at 4,864 and 1.5 GB at 18,944.
    /// </summary>
    public static long ByteCount(int width)
    {
        long sums = 0;
        for (int first = 0; first < width; first += BlockSize) sums += Math.Min(BlockSize, width - first) * (long)Math.Min(first + BlockSize, width);
        return checked((sums * sizeof(double)) + GatheredRows.ByteCount(width));
    }

    /// <summary>The sum for a pair of channels, of the rows folded so far.</summary>
    public double this[int row, int column]
    {
        get
        {
            if (column > row) (row, column) = (column, row);
            int block = row / BlockSize;
            return _blocks[block][((row - (block * BlockSize)) * (long)EndOf(block)) + column];
        }
    }

    /// <summary>Copies row <paramref name="row"/> of the lower triangle, diagonal included: <paramref name="row"/> + 1 sums, divided by <paramref name="scale"/>.</summary>
    public void CopyRow(int row, double scale, Span<float> sums)
    {
        int block = row / BlockSize;
        ReadOnlySpan<double> source = _blocks[block].AsSpan(checked((int)((row - (block * BlockSize)) * (long)EndOf(block))), row + 1);
        for (int column = 0; column <= row; column++) sums[column] = (float)(source[column] / scale);
    }

    /// <summary>Adds sums over <paramref name="rowCount"/> rows that were made elsewhere, a row of the lower triangle at a time.</summary>
    /// <param name="readRow">Fills row 0, 1, 2 and on with as many sums and one more.</param>
    public void AddSums(long rowCount, Action<int, float[]> readRow)
    {
        if (_pending.Count != 0) throw new InvalidOperationException("sums are added before their rows are folded");
        float[] sums = new float[Width];
        for (int row = 0; row < Width; row++)
        {
            readRow(row, sums);
            int block = row / BlockSize;
            Span<double> target = _blocks[block].AsSpan(checked((int)((row - (block * BlockSize)) * (long)EndOf(block))), row + 1);
            for (int column = 0; column <= row; column++) target[column] += sums[column];
        }

        RowCount += rowCount;
    }

    /// <summary>Adds rows back to back, [rowCount, <see cref="Width"/>].</summary>
    public void Add(ReadOnlySpan<float> rows, int rowCount, WorkerTeam team)
    {
        if (rows.Length != (long)rowCount * Width) throw new ArgumentException($"{rows.Length} values are not {rowCount} rows of {Width}", nameof(rows));
        for (int row = 0; row < rowCount;)
        {
            int count = Math.Min(FoldRows - _pending.Count, rowCount - row);
            _pending.Add(rows.Slice(row * Width, count * Width), team);
            row += count;
            if (_pending.Count == FoldRows) Fold(team);
        }

        RowCount += rowCount;
    }

    /// <summary>Adds the gathered rows to the sums. Called once after the last row; earlier calls only change the grouping of sums.</summary>
    public void Fold(WorkerTeam team)
    {
        if (_pending.Count == 0) return;
        // The longest first, so that threads end together.
        team.Run(_blocks.Length, task => Fold(_blocks.Length - 1 - task));
        _pending.Clear();
    }

    /// <summary>Adds the sums of other rows of the same input; both are folded. Partitions are added in order of their index.</summary>
    public void Add(GramMatrix other)
    {
        if (other.Width != Width) throw new ArgumentException($"{other.Width} channels, not {Width}", nameof(other));
        if (_pending.Count != 0 || other._pending.Count != 0) throw new InvalidOperationException("sums are added before their rows are folded");
        for (int block = 0; block < _blocks.Length; block++) System.Numerics.Tensors.TensorPrimitives.Add(_blocks[block], other._blocks[block], _blocks[block]);
        RowCount += other.RowCount;
    }

    /// <summary>Makes these the sums of inputs divided by <paramref name="divisors"/>, one for each channel.</summary>
    public void DivideInputs(ReadOnlySpan<float> divisors)
    {
        if (divisors.Length != Width) throw new ArgumentException($"{divisors.Length} divisors for {Width} channels", nameof(divisors));
        if (_pending.Count != 0) throw new InvalidOperationException("sums are divided before their rows are folded");
        for (int row = 0; row < Width; row++)
        {
            int block = row / BlockSize;
            Span<double> sums = _blocks[block].AsSpan(checked((int)((row - (block * BlockSize)) * (long)EndOf(block))), row + 1);
            for (int column = 0; column <= row; column++) sums[column] /= (double)divisors[row] * divisors[column];
        }
    }

    private int EndOf(int block) => Math.Min((block + 1) * BlockSize, Width);

    private int RowsOf(int block) => EndOf(block) - (block * BlockSize);

    private void Fold(int block)
    {
        int rowCount = RowsOf(block), end = EndOf(block);
        float* left = (_scratch ??= new NativeFloats()).Get((BlockSize * GatheredRows.LeftStride) + (BlockSize * ColumnChunk));
        float* sums = left + (BlockSize * GatheredRows.LeftStride);
        _pending.Turn(block * BlockSize, rowCount, left);
        for (int column = 0; column < end; column += ColumnChunk)
        {
            int count = Math.Min(ColumnChunk, end - column);
            float* panels = _pending.Panels.Pointer + (column / MatrixProduct.PanelWidth * _pending.Panels.PanelStride);
            MatrixProduct.MultiplyPanels(left, GatheredRows.LeftStride, rowCount, _pending.Count, panels, _pending.Panels.PanelStride, count, sums, ColumnChunk, accumulate: false);
            for (int row = 0; row < rowCount; row++)
            {
                Span<double> target = _blocks[block].AsSpan((row * end) + column, count);
                Accumulate(new ReadOnlySpan<float>(sums + (row * ColumnChunk), count), target);
            }
        }
    }

    private static void Accumulate(ReadOnlySpan<float> sums, Span<double> totals)
    {
        int i = 0;
        for (; i + Vector256<float>.Count <= sums.Length; i += Vector256<float>.Count)
        {
            (Vector256<double> low, Vector256<double> high) = Vector256.Widen(Vector256.Create(sums.Slice(i, Vector256<float>.Count)));
            (Vector256.Create(totals.Slice(i, 4)) + low).CopyTo(totals[i..]);
            (Vector256.Create(totals.Slice(i + 4, 4)) + high).CopyTo(totals[(i + 4)..]);
        }

        for (; i < sums.Length; i++) totals[i] += sums[i];
    }
}
