using System.Buffers;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>One matrix of the forward pass, or several with the same input stacked (q, k and v; gate and up): resident as panels, or decoded at each use.</summary>
internal sealed unsafe class WeightMatrix
{
    // Floats decoded at a time: 8 MiB for each thread, enough rows for packing the input once to pay.
    private const int SlabFloats = 2 << 20;

    [ThreadStatic]
    private static MatrixProductPanels? _slabPanels;

    private readonly ITensorSource _source;
    private readonly TensorEntry[] _parts;
    private readonly int _depth;
    private MatrixProductPanels? _resident;

    public WeightMatrix(ITensorSource source, params TensorEntry[] parts)
    {
        _source = source;
        _parts = parts;
        _depth = checked((int)parts[0].Shape.RowLength);
        RowCount = checked((int)parts.Sum(part => part.Shape.RowCount));
    }

    /// <summary>Output channels.</summary>
    public int RowCount { get; }

    public long ResidentBytes => checked(MatrixProductPanels.FloatCount(RowCount, _depth) * sizeof(float));

    private int SlabRows => Math.Clamp(SlabFloats / _depth / MatrixProduct.PanelWidth * MatrixProduct.PanelWidth, MatrixProduct.PanelWidth, RowCount + MatrixProduct.PanelWidth);

    /// <summary>Decodes the matrix once and for all.</summary>
    public void MakeResident(WorkerTeam team)
    {
        if (_resident is not null) return;
        MatrixProductPanels panels = new(RowCount, _depth);
        int slabRows = Math.Min(SlabRows, 256);
        team.Run((RowCount + slabRows - 1) / slabRows, slab => WithRows(slab * slabRows, slabRows, (rows, first) => panels.Pack(rows, first)));
        _resident = panels;
    }

    /// <summary>Drops what <see cref="MakeResident"/> made; the matrix is then read at each use.</summary>
    public void Release() => _resident = null;

    /// <summary>One row, <paramref name="destination"/>.Length floats.</summary>
    public void ReadRow(int row, Span<float> destination)
    {
        if (_resident is not null) _resident.CopyColumn(row, destination);
        else ReadRows(row, 1, destination);
    }

    /// <summary>c [rowCount, RowCount] = (c +) a [rowCount, depth] times the transposed matrix.</summary>
    public void Multiply(float* a, int rowCount, float* c, WorkerTeam team, bool accumulate = false)
    {
        if (_resident is not null)
        {
            MatrixProduct.Multiply(a, rowCount, _resident, c, RowCount, team, accumulate);
            return;
        }

        int slabRows = SlabRows;
        team.Run((RowCount + slabRows - 1) / slabRows, slab => WithRows(slab * slabRows, slabRows, (rows, first) =>
        {
            MatrixProductPanels panels = _slabPanels ??= new MatrixProductPanels(0, 0);
            panels.Reshape(rows.Length / _depth, _depth);
            panels.Pack(rows, 0);
            MatrixProduct.MultiplyPanels(a, _depth, rowCount, _depth, panels.Pointer, panels.PanelStride, panels.ColumnCount, c + first, RowCount, accumulate);
            GC.KeepAlive(panels);
        }));
    }

    private delegate void RowsAction(ReadOnlySpan<float> rows, int firstRow);

    private void WithRows(int firstRow, int rowCount, RowsAction action)
    {
        int rows = Math.Min(rowCount, RowCount - firstRow);
        float[] buffer = ArrayPool<float>.Shared.Rent(checked(rows * _depth));
        try
        {
            ReadRows(firstRow, rows, buffer);
            action(buffer.AsSpan(0, rows * _depth), firstRow);
        }
        finally
        {
            ArrayPool<float>.Shared.Return(buffer);
        }
    }

    private void ReadRows(int firstRow, int rowCount, Span<float> destination)
    {
        long partFirst = 0;
        foreach (TensorEntry part in _parts)
        {
            long first = Math.Max(firstRow, partFirst);
            long end = Math.Min((long)firstRow + rowCount, partFirst + part.Shape.RowCount);
            if (first < end) _source.ReadRows(part, first - partFirst, (int)(end - first), destination[(int)((first - firstRow) * _depth)..]);
            partFirst += part.Shape.RowCount;
        }
    }
}
