using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Quantization;

/// <summary>
/// A few rows under GPTQ. With <c>H = R R^T</c> and errors <c>e = w - q</c> the loss is <c>|e R|^2</c>, whose term j depends on e_0 to e_j alone: each column in turn is
/// rounded where its term vanishes, <c>w_j + (sum over i below j of e_i R_ij) / R_jj</c>. These are GPTQ's compensated weights. Sums over the columns of finished
/// blocks are one matrix product for each block, and nothing is written back to the weights.
/// Rows lie side by side: panels of <see cref="Lanes"/> of them, in a panel column after column, so that a vector holds the same column of many rows.
/// </summary>
internal sealed unsafe partial class GptqRows : IDisposable
{
    private const int BlockSize = GptqHessian.BlockSize;
    private const int Lanes = MatrixProduct.PanelWidth;

    /// <summary>Entries of a table that one instruction looks up.</summary>
    private const int ShortTable = 16;

    private readonly GptqHessian _hessian;
    private readonly IBlockCodec _codec;
    private readonly GridShape _shape;
    private readonly int _blockBytes;
    private readonly int _rowCount;
    private readonly int _panelCount;
    private readonly int _width;
    private readonly NativeFloats _storage = new();

    // [panel, column in _order, lane]
    private readonly float* _weights;
    private readonly float* _errors;

    // [column of a block, row]
    private readonly float* _sums;

    // [panel, column of the tensor, lane]
    private readonly byte[] _codes;

    // [row, block, parameter]
    private readonly float[] _parameters;

    // Levels: [panel, sub-block, lane]; count and table are those of the grid.
    private readonly float[] _steps;
    private readonly float[] _origins;
    private readonly float[] _zeros;
    private readonly float[]? _table;
    private readonly bool _isE4M3;

    // The column of the tensor at each place of _weights and _errors.
    private readonly int[] _natural;
    private int[] _order;

    public GptqRows(GptqHessian hessian, IBlockCodec codec, int blockBytes, RowSlab rows)
    {
        (_hessian, _codec, _shape, _blockBytes, _rowCount, _width) = (hessian, codec, codec.Shape, blockBytes, rows.RowCount, rows.RowLength);
        _panelCount = (_rowCount + Lanes - 1) / Lanes;
        long values = (long)_panelCount * Lanes * _width;
        _weights = _storage.Get((2 * values) + ((long)_panelCount * Lanes * RefitSpan));
        _errors = _weights + values;
        _sums = _errors + values;
        new Span<float>(_weights, checked((int)(2 * values))).Clear();
        _codes = new byte[values];
        _parameters = new float[(long)_rowCount * _width / _shape.BlockLength * _shape.ParameterCount];
        _steps = new float[values / _shape.SubBlockLength];
        _origins = new float[_steps.Length];
        _zeros = new float[_steps.Length];
        _table = codec.GetLevels(new float[_shape.ParameterCount], 0).Table;
        _isE4M3 = ReferenceEquals(_table, Float8.LevelsE4M3);
        if (_table?.Length > ShortTable && !_isE4M3) throw new NotSupportedException($"a table of {_table.Length} levels that have no arithmetic");
        // A vector of entries is looked up, also where a table has fewer.
        if (_table?.Length < ShortTable) Array.Resize(ref _table, ShortTable);
        _order = _natural = [.. Enumerable.Range(0, _width)];
        for (int row = 0; row < _rowCount; row++)
        {
            float* target = Lane(_weights, row);
            for (int column = 0; column < _width; column++) target[column * Lanes] = rows.Values[(row * _width) + column];
        }
    }

    private int RowStride => _panelCount * Lanes;

    private int SubBlocks => _width / _shape.SubBlockLength;

    /// <param name="blocks">The rows as the type's encoder wrote them; receives the solution.</param>
    public void Solve(Span<byte> blocks, Span<GptqErrors> errors)
    {
        Unpack(blocks);
        double[] square = Traces(_weights), before = Traces(_errors);
        Arrange(_hessian.ColumnOrder.ToArray());
        Visit(_hessian.Factor, isDescent: false);
        Arrange(_natural);
        for (int pass = 0; pass < _hessian.Options.DescentPasses; pass++)
        {
            if (pass < _hessian.Options.RefitPasses) Refit();
            Visit(_hessian.Gram, isDescent: true);
        }

        double[] after = Traces(_errors);
        byte[] codes = new byte[_shape.BlockLength];
        for (int row = 0; row < _rowCount; row++)
        {
            bool isBetter = after[row] < before[row];
            errors[row] = new(before[row], isBetter ? after[row] : before[row], square[row]);
            if (!isBetter) continue;
            int blockCount = _width / _shape.BlockLength;
            for (int block = 0; block < blockCount; block++)
            {
                for (int i = 0; i < codes.Length; i++) codes[i] = _codes[CodeIndex(row, (block * _shape.BlockLength) + i)];
                int index = (row * blockCount) + block;
                _codec.Pack(codes, _parameters.AsSpan(index * _shape.ParameterCount, _shape.ParameterCount), blocks.Slice(index * _blockBytes, _blockBytes));
            }
        }
    }

    public void Dispose() => _storage.Dispose();

    private float* Lane(float* panels, int row) => panels + ((long)(row / Lanes) * _width * Lanes) + (row % Lanes);

    private long CodeIndex(int row, int column) => (((long)(row / Lanes) * _width) + column) * Lanes + (row % Lanes);

    private void SetLevels(int row, int subBlock, Levels levels)
    {
        int at = ((((row / Lanes) * SubBlocks) + subBlock) * Lanes) + (row % Lanes);
        (_steps[at], _origins[at], _zeros[at]) = (levels.Step, levels.Origin, levels.Zero);
    }

    private void Unpack(ReadOnlySpan<byte> blocks)
    {
        int blockCount = _width / _shape.BlockLength, subBlocks = _shape.BlockLength / _shape.SubBlockLength;
        byte[] codes = new byte[_shape.BlockLength];
        for (int row = 0; row < _rowCount; row++)
        {
            float* weights = Lane(_weights, row), errors = Lane(_errors, row);
            for (int block = 0; block < blockCount; block++)
            {
                int index = (row * blockCount) + block;
                Span<float> parameters = _parameters.AsSpan(index * _shape.ParameterCount, _shape.ParameterCount);
                _codec.Unpack(blocks.Slice(index * _blockBytes, _blockBytes), codes, parameters);
                for (int sub = 0; sub < subBlocks; sub++)
                {
                    Levels levels = _codec.GetLevels(parameters, sub);
                    SetLevels(row, (block * subBlocks) + sub, levels);
                    for (int i = sub * _shape.SubBlockLength; i < (sub + 1) * _shape.SubBlockLength; i++)
                    {
                        int column = (block * _shape.BlockLength) + i;
                        _codes[CodeIndex(row, column)] = codes[i];
                        errors[column * Lanes] = weights[column * Lanes] - levels.Value(codes[i]);
                    }
                }
            }
        }
    }

    /// <summary>Brings weights and errors into another order of columns.</summary>
    private void Arrange(int[] order)
    {
        if (order.AsSpan().SequenceEqual(_order)) return;
        int[] place = new int[_width];
        for (int at = 0; at < _width; at++) place[_order[at]] = at;
        float[] moved = new float[_width * Lanes];
        for (int panel = 0; panel < 2 * _panelCount; panel++)
        {
            // Those of the errors lie behind those of the weights.
            Span<float> columns = new(_weights + ((long)panel * moved.Length), moved.Length);
            for (int at = 0; at < _width; at++) columns.Slice(place[order[at]] * Lanes, Lanes).CopyTo(moved.AsSpan(at * Lanes));
            moved.CopyTo(columns);
        }

        _order = order;
    }

    /// <summary>Chooses all codes once, under the sums of finished columns with R or, in a descent, of all columns with H.</summary>
    /// <param name="matrix">Row j holds what the error of each column adds to the sum of column j.</param>
    private void Visit(float* matrix, bool isDescent)
    {
        int granule = _shape.GranuleLength;
        for (int first = 0; first < _width; first += BlockSize)
        {
            int size = Math.Min(BlockSize, _width - first);
            Multiply(matrix, first, size, 0, isDescent ? _width : first, _errors, accumulate: false);
            ReadOnlySpan<float> added = isDescent ? _hessian.Added.Slice(first, size) : [];
            if (isDescent) AddDiagonal(first, size);
            float* square = matrix + ((long)first * _width) + first;
            if (granule == 1) ChooseColumns(first, size, square, added);
            else ChooseGranules(first, size, square, added);
        }
    }

    /// <summary>sums [size, rows] (+)= rows <paramref name="first"/> and on of a matrix times <paramref name="columns"/>, from column <paramref name="from"/> to <paramref name="end"/>.</summary>
    private void Multiply(float* matrix, int first, int size, int from, int end, float* columns, bool accumulate) => MatrixProduct.MultiplyPanels(
        matrix + ((long)first * _width) + from, _width, size, end - from, columns + ((long)from * Lanes), (long)_width * Lanes, RowStride, _sums, RowStride, accumulate);

    /// <summary>What is added to H's diagonal, in sums that were made with H alone.</summary>
    private void AddDiagonal(int first, int size)
    {
        for (int panel = 0; panel < _panelCount; panel++)
        {
            for (int j = 0; j < size; j++)
            {
                Span<float> sums = new(_sums + ((long)j * RowStride) + (panel * Lanes), Lanes);
                ReadOnlySpan<float> errors = new(_errors + ((((long)panel * _width) + first + j) * Lanes), Lanes);
                System.Numerics.Tensors.TensorPrimitives.MultiplyAdd(errors, _hessian.Added[first + j], sums, sums);
            }
        }
    }

    /// <summary><c>x H x^T</c> of each row; columns in the tensor's order.</summary>
    private double[] Traces(float* rows)
    {
        double[] traces = new double[_rowCount];
        for (int first = 0; first < _width; first += BlockSize)
        {
            int size = Math.Min(BlockSize, _width - first);
            // Twice the columns before the block, as H is symmetric, and its square.
            Multiply(_hessian.Gram, first, size, 0, first, rows, accumulate: false);
            Span<float> sums = new(_sums, size * RowStride);
            System.Numerics.Tensors.TensorPrimitives.Multiply(sums, 2, sums);
            Multiply(_hessian.Gram, first, size, first, first + size, rows, accumulate: true);
            for (int row = 0; row < _rowCount; row++)
            {
                float* own = Lane(rows, row) + ((long)first * Lanes);
                for (int j = 0; j < size; j++) traces[row] += (double)own[j * Lanes] * _sums[((long)j * RowStride) + row];
            }
        }

        // Rounding may take a sum of squares below zero.
        for (int row = 0; row < _rowCount; row++) traces[row] = Math.Max(0, traces[row]);
        return traces;
    }
}
