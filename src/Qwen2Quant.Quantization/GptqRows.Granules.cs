using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Quantization;

/// <summary>Codebook grids: codes granule by granule, row by row.</summary>
internal sealed unsafe partial class GptqRows
{
    private void ChooseGranules(int first, int size, float* square, ReadOnlySpan<float> added)
    {
        int k = _shape.GranuleLength;
        float[] metrics = new float[size * k];
        double[] inverses = new double[size * k];
        for (int start = 0; start < size; start += k) Prepare(start, square, added, metrics.AsSpan(start * k, k * k), inverses.AsSpan(start * k, k * k));
        float[] sums = new float[size];
        for (int row = 0; row < _rowCount; row++)
        {
            for (int j = 0; j < size; j++) sums[j] = _sums[((long)j * RowStride) + row];
            ChooseGranules(row, first, square, sums, metrics, inverses, isDescent: !added.IsEmpty);
        }
    }

    private void ChooseGranules(int row, int first, float* square, float[] sums, float[] metrics, double[] inverses, bool isDescent)
    {
        int k = _shape.GranuleLength, size = sums.Length, blockCount = _width / _shape.BlockLength;
        ICodebookGrid grid = (ICodebookGrid)_codec;
        float* weights = Lane(_weights, row) + ((long)first * Lanes), errors = Lane(_errors, row) + ((long)first * Lanes);
        Span<float> target = stackalloc float[k], changes = stackalloc float[k];
        Span<byte> codes = stackalloc byte[k];
        for (int start = 0; start < size; start += k)
        {
            int column = _order[first + start];
            for (int j = 0; j < k; j++)
            {
                double shift = 0;
                for (int i = 0; i < k; i++) shift += sums[start + i] * inverses[(start * k) + (i * k) + j];
                target[j] = weights[(start + j) * Lanes] - (isDescent ? errors[(start + j) * Lanes] : 0) + (float)shift;
            }

            int block = (row * blockCount) + (column / _shape.BlockLength);
            grid.Round(target, metrics.AsSpan(start * k, k * k), _parameters.AsSpan(block * _shape.ParameterCount, _shape.ParameterCount), column % _shape.BlockLength, codes);
            for (int j = 0; j < k; j++)
            {
                ref float error = ref errors[(start + j) * Lanes];
                float now = weights[(start + j) * Lanes] - ValueOf(codes[j], row, column + j);
                changes[j] = now - (isDescent ? error : 0);
                error = now;
                _codes[CodeIndex(row, column + j)] = codes[j];
            }

            for (int next = start + k; next < size; next++)
            {
                float* factors = square + ((long)next * _width) + start;
                float sum = sums[next];
                for (int j = 0; j < k; j++) sum += changes[j] * factors[j];
                sums[next] = sum;
            }
        }
    }

    /// <summary>Tables of codebook grids may differ from sub-block to sub-block.</summary>
    private float ValueOf(byte code, int row, int column)
    {
        int block = (row * (_width / _shape.BlockLength)) + (column / _shape.BlockLength);
        Levels levels = _codec.GetLevels(_parameters.AsSpan(block * _shape.ParameterCount, _shape.ParameterCount), column % _shape.BlockLength / _shape.SubBlockLength);
        return levels.Value(code);
    }

    /// <summary>Metric M of a granule's errors and the matrix that turns its sums into the least point: the inverse of R, or in a descent of M = H.</summary>
    private void Prepare(int start, float* square, ReadOnlySpan<float> added, Span<float> metric, Span<double> inverse)
    {
        int k = _shape.GranuleLength;
        bool isDescent = !added.IsEmpty;
        Span<double> matrix = stackalloc double[k * k];
        for (int i = 0; i < k; i++)
        {
            // R, whose transpose is given.
            for (int j = isDescent ? 0 : i; j < k; j++) matrix[(i * k) + j] = square[((long)(start + j) * _width) + start + i] + (isDescent && i == j ? added[start + i] : 0);
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
}
