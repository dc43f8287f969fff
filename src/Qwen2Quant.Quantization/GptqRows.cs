using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Quantization;

/// <summary>
/// A few rows under GPTQ. With <c>H = R R^T</c> and errors <c>e = w - q</c> the loss is <c>|e R|^2</c>, whose term j depends on e_0 to e_j alone: each column in turn is
/// rounded where its term vanishes, <c>w_j + (sum over i below j of e_i R_ij) / R_jj</c>. These are GPTQ's compensated weights. Sums over the columns of finished
/// blocks are one matrix product for each block, and nothing is written back to the weights.
/// </summary>
internal sealed unsafe partial class GptqRows
{
    private const int BlockSize = GptqHessian.BlockSize;

    private readonly GptqHessian _hessian;
    private readonly IBlockCodec _codec;
    private readonly int _blockBytes;
    private readonly int _rowCount;
    private readonly int _width;
    private readonly float[] _weights;
    private readonly float[] _errors;
    private readonly byte[] _codes;
    private readonly float[] _parameters;
    private readonly Levels[] _levels;
    private readonly float[] _sums = new float[BlockSize];
    private readonly float[] _products;
    private readonly float[] _square = new float[BlockSize * BlockSize];

    // The column of the tensor at each place of _weights and _errors.
    private readonly int[] _natural;
    private int[] _order;

    public GptqRows(GptqHessian hessian, IBlockCodec codec, int blockBytes, RowSlab rows)
    {
        (_hessian, _codec, _blockBytes, _rowCount, _width) = (hessian, codec, blockBytes, rows.RowCount, rows.RowLength);
        GridShape shape = codec.Shape;
        _weights = new float[_rowCount * _width];
        _errors = new float[_weights.Length];
        _codes = new byte[_weights.Length];
        _parameters = new float[_weights.Length / shape.BlockLength * shape.ParameterCount];
        _levels = new Levels[_weights.Length / shape.SubBlockLength];
        _products = new float[_rowCount * BlockSize];
        rows.Values.CopyTo(_weights);
        _order = _natural = [.. Enumerable.Range(0, _width)];
    }

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
        int blockLength = _codec.Shape.BlockLength, parameterCount = _codec.Shape.ParameterCount;
        for (int row = 0; row < _rowCount; row++)
        {
            bool isBetter = after[row] < before[row];
            errors[row] = new(before[row], isBetter ? after[row] : before[row], square[row]);
            if (!isBetter) continue;
            for (int block = row * _width / blockLength; block < (row + 1) * _width / blockLength; block++)
            {
                _codec.Pack(_codes.AsSpan(block * blockLength, blockLength), _parameters.AsSpan(block * parameterCount, parameterCount), blocks.Slice(block * _blockBytes, _blockBytes));
            }
        }
    }

    private void Unpack(ReadOnlySpan<byte> blocks)
    {
        GridShape shape = _codec.Shape;
        int subBlocks = shape.BlockLength / shape.SubBlockLength;
        for (int block = 0; block < _weights.Length / shape.BlockLength; block++)
        {
            Span<float> parameters = _parameters.AsSpan(block * shape.ParameterCount, shape.ParameterCount);
            _codec.Unpack(blocks.Slice(block * _blockBytes, _blockBytes), _codes.AsSpan(block * shape.BlockLength, shape.BlockLength), parameters);
            for (int sub = 0; sub < subBlocks; sub++) _levels[(block * subBlocks) + sub] = _codec.GetLevels(parameters, sub);
        }

        for (int value = 0; value < _weights.Length; value++) _errors[value] = _weights[value] - _levels[value / shape.SubBlockLength].Value(_codes[value]);
    }

    /// <summary>Brings weights and errors into another order of columns.</summary>
    private void Arrange(int[] order)
    {
        if (order.AsSpan().SequenceEqual(_order)) return;
        int[] place = new int[_width];
        for (int at = 0; at < _width; at++) place[_order[at]] = at;
        float[] moved = new float[_width];
        for (int start = 0; start < _weights.Length; start += _width)
        {
            foreach (float[] values in new[] { _weights, _errors })
            {
                Span<float> row = values.AsSpan(start, _width);
                for (int at = 0; at < _width; at++) moved[at] = row[place[order[at]]];
                moved.CopyTo(row);
            }
        }

        _order = order;
    }

    /// <summary>Chooses all codes once, under the sums of finished columns with R or, in a descent, of all columns with H.</summary>
    private void Visit(MatrixProductPanels[] panels, bool isDescent)
    {
        int granule = _hessian.GranuleLength;
        for (int block = 0; block < panels.Length; block++)
        {
            int first = block * BlockSize, size = panels[block].ColumnCount;
            Multiply(_errors, panels[block], isDescent ? _width : first);
            ReadSquare(panels[block], first, size);
            ReadOnlySpan<float> added = isDescent ? _hessian.Added.Slice(first, size) : [];
            for (int j = 0; j < added.Length; j++) _square[(j * size) + j] += added[j];
            float[] metrics = new float[size * granule];
            double[] inverses = new double[size * granule];
            for (int start = 0; start < size; start += granule) Prepare(start, size, isDescent, metrics.AsSpan(start * granule, granule * granule), inverses.AsSpan(start * granule, granule * granule));
            for (int row = 0; row < _rowCount; row++)
            {
                Span<float> sums = _products.AsSpan(row * size, size);
                // The product was with H alone.
                if (isDescent) TensorPrimitives.MultiplyAdd(_errors.AsSpan((row * _width) + first, size), added, sums, sums);
                if (granule == 1) ChooseColumns(row, first, sums, inverses, isDescent);
                else ChooseGranules(row, first, sums, metrics, inverses, isDescent);
            }
        }
    }

    private void ChooseColumns(int row, int first, Span<float> sums, ReadOnlySpan<double> inverses, bool isDescent)
    {
        int subLength = _codec.Shape.SubBlockLength, size = sums.Length;
        ReadOnlySpan<int> order = _order.AsSpan(first, size);
        Span<float> errors = _errors.AsSpan((row * _width) + first, size);
        ReadOnlySpan<float> weights = _weights.AsSpan((row * _width) + first, size);
        for (int j = 0; j < size; j++)
        {
            int value = (row * _width) + order[j];
            ref readonly Levels levels = ref _levels[value / subLength];
            float old = isDescent ? errors[j] : 0;
            int code = levels.Nearest(weights[j] - old + (float)(sums[j] * inverses[j]));
            errors[j] = weights[j] - levels.Value(code);
            _codes[value] = (byte)code;
            Add(errors[j] - old, j, j + 1, sums);
        }
    }

    private void ChooseGranules(int row, int first, Span<float> sums, ReadOnlySpan<float> metrics, ReadOnlySpan<double> inverses, bool isDescent)
    {
        int k = _hessian.GranuleLength, size = sums.Length;
        GridShape shape = _codec.Shape;
        ICodebookGrid grid = (ICodebookGrid)_codec;
        Span<float> target = stackalloc float[k], changes = stackalloc float[k];
        for (int start = 0; start < size; start += k)
        {
            int at = (row * _width) + first + start, value = (row * _width) + _order[first + start];
            for (int j = 0; j < k; j++)
            {
                double shift = 0;
                for (int i = 0; i < k; i++) shift += sums[start + i] * inverses[(start * k) + (i * k) + j];
                target[j] = _weights[at + j] - (isDescent ? _errors[at + j] : 0) + (float)shift;
            }

            int block = value / shape.BlockLength;
            Span<byte> codes = _codes.AsSpan(value, k);
            grid.Round(target, metrics.Slice(start * k, k * k), _parameters.AsSpan(block * shape.ParameterCount, shape.ParameterCount), value % shape.BlockLength, codes);
            for (int j = 0; j < k; j++)
            {
                float error = _weights[at + j] - _levels[(value + j) / shape.SubBlockLength].Value(codes[j]);
                changes[j] = error - (isDescent ? _errors[at + j] : 0);
                _errors[at + j] = error;
            }

            for (int j = 0; j < k; j++) Add(changes[j], start + j, start + k, sums);
        }
    }

    /// <summary>Adds row <paramref name="j"/> of the square, times <paramref name="change"/>, to the sums from column <paramref name="from"/> on.</summary>
    private void Add(float change, int j, int from, Span<float> sums)
    {
        if (change == 0 || from == sums.Length) return;
        TensorPrimitives.MultiplyAdd(_square.AsSpan((j * sums.Length) + from, sums.Length - from), change, sums[from..], sums[from..]);
    }

    /// <summary>Metric M of a granule's errors and the matrix that turns its sums into the least point: the inverse of R, or in a descent of M = H.</summary>
    private void Prepare(int start, int size, bool isDescent, Span<float> metric, Span<double> inverse)
    {
        int k = _hessian.GranuleLength;
        Span<double> matrix = stackalloc double[k * k];
        for (int i = 0; i < k; i++)
        {
            for (int j = 0; j < k; j++) matrix[(i * k) + j] = _square[((start + i) * size) + start + j];
        }

        for (int i = 0; i < k; i++)
        {
            for (int j = 0; j < k; j++)
            {
                double sum = 0;
                for (int l = 0; l < k; l++) sum += matrix[(i * k) + l] * matrix[(j * k) + l];
                metric[(i * k) + j] = (float)(isDescent ? matrix[(i * k) + j] : sum);
            }
        }

        inverse.Clear();
        for (int i = 0; i < k; i++) inverse[(i * k) + i] = 1;
        // Gauss-Jordan: pivots of triangular and of positive definite matrices need no exchange.
        for (int i = 0; i < k; i++)
        {
            double pivot = 1 / matrix[(i * k) + i];
            for (int j = 0; j < k; j++) (matrix[(i * k) + j], inverse[(i * k) + j]) = (matrix[(i * k) + j] * pivot, inverse[(i * k) + j] * pivot);
            for (int other = 0; other < k; other++)
            {
                double factor = matrix[(other * k) + i];
                if (other == i || factor == 0) continue;
                for (int j = 0; j < k; j++)
                {
                    matrix[(other * k) + j] -= factor * matrix[(i * k) + j];
                    inverse[(other * k) + j] -= factor * inverse[(i * k) + j];
                }
            }
        }
    }

    /// <summary><c>x H x^T</c> of each row, from the columns before each block and the block's square.</summary>
    private double[] Traces(float[] rows)
    {
        double[] traces = new double[_rowCount];
        for (int block = 0; block < _hessian.Gram.Length; block++)
        {
            MatrixProductPanels panels = _hessian.Gram[block];
            int first = block * BlockSize, size = panels.ColumnCount;
            Multiply(rows, panels, first);
            ReadSquare(panels, first, size);
            for (int row = 0; row < _rowCount; row++)
            {
                ReadOnlySpan<float> own = rows.AsSpan((row * _width) + first, size);
                Span<float> sums = _sums.AsSpan(0, size);
                TensorPrimitives.Multiply(_products.AsSpan(row * size, size), 2, sums);
                for (int j = 0; j < size; j++) Add(own[j], j, 0, sums);
                for (int j = 0; j < size; j++) traces[row] += (double)own[j] * sums[j];
            }
        }

        // Rounding may take a sum of squares below zero.
        for (int row = 0; row < _rowCount; row++) traces[row] = Math.Max(0, traces[row]);
        return traces;
    }

    /// <summary>products [rowCount, columns of the block] of the first <paramref name="depth"/> columns of <paramref name="rows"/>.</summary>
    private void Multiply(float[] rows, MatrixProductPanels panels, int depth)
    {
        fixed (float* left = rows, to = _products) MatrixProduct.MultiplyPanels(left, _width, _rowCount, depth, panels.Pointer, panels.PanelStride, panels.ColumnCount, to, panels.ColumnCount, accumulate: false);
        GC.KeepAlive(panels);
    }

    private void ReadSquare(MatrixProductPanels panels, int first, int size)
    {
        for (int row = 0; row < size; row++) ReadRow(panels, first + row, _square.AsSpan(row * size, size));
    }

    private static void ReadRow(MatrixProductPanels panels, int row, Span<float> target)
    {
        const int panelWidth = MatrixProduct.PanelWidth;
        for (int column = 0; column < target.Length; column += panelWidth)
        {
            int count = Math.Min(panelWidth, target.Length - column);
            new ReadOnlySpan<float>(panels.Pointer + (column / panelWidth * panels.PanelStride) + ((long)row * panelWidth), count).CopyTo(target[column..]);
        }
    }
}
