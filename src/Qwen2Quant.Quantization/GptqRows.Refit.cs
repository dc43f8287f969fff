using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Quantization;

/// <summary>The parameters of blocks under H, with the codes fixed: coordinate descent over what is stored.</summary>
internal sealed unsafe partial class GptqRows
{
    /// <summary>Longer blocks keep their parameters: the square of H that belongs to one is too large to go through for each.</summary>
    private const int LongestRefitBlock = 256;

    /// <summary>Columns whose sums are at hand together: whole blocks.</summary>
    private int RefitSpan => Math.Max(BlockSize, Math.Min(_shape.BlockLength, LongestRefitBlock));

    /// <summary>
    /// Values y are linear in each parameter: with v the change of y for a change of one, the loss (w - y) H (w - y) is least at a change of v H e / v H v, and among
    /// stored values at the one nearest to that.
    /// </summary>
    private void Refit()
    {
        if (_shape.BlockLength > LongestRefitBlock) return;
        using NativeFloats storage = new();
        float* direction = storage.Get((long)(_shape.BlockLength + RefitSpan) * Lanes);
        for (int first = 0; first < _width; first += RefitSpan)
        {
            int size = Math.Min(RefitSpan, _width - first);
            Multiply(_hessian.Gram, first, size, 0, _width, _errors, accumulate: false);
            AddDiagonal(first, size);
            for (int panel = 0; panel < _panelCount; panel++)
            {
                for (int at = 0; at < size; at += _shape.BlockLength) RefitBlock(panel, first, size, at, direction, direction + ((long)_shape.BlockLength * Lanes));
            }
        }
    }

    /// <summary>All parameters of one block in each row of a panel, those of sub-blocks first.</summary>
    /// <param name="at">The block's first column among the <paramref name="size"/> whose sums are at hand.</param>
    /// <param name="v">Room for a block.</param>
    /// <param name="image">Room for H v, for all columns at hand.</param>
    private void RefitBlock(int panel, int first, int size, int at, float* v, float* image)
    {
        int subLength = _shape.SubBlockLength, column = first + at, rows = Math.Min(Lanes, _rowCount - (panel * Lanes));
        float* sums = _sums + (panel * Lanes), errors = _errors + ((((long)panel * _width) + column) * Lanes), weights = _weights + ((((long)panel * _width) + column) * Lanes);
        Span<float> slopes = stackalloc float[Lanes], curvatures = stackalloc float[Lanes], changes = stackalloc float[Lanes];
        for (int parameter = _shape.ParameterCount - 1; parameter >= 0; parameter--)
        {
            if (float.IsNaN(_codec.Store(parameter, 1))) continue;
            (int firstSub, int subCount) = _codec.SubBlocksOf(parameter);
            int start = firstSub * subLength, length = subCount * subLength;
            new Span<float>(v, length * Lanes).Clear();
            for (int lane = 0; lane < rows; lane++) Direction((panel * Lanes) + lane, column, parameter, firstSub, subCount, v + lane);
            float* h = _hessian.Gram + ((long)first * _width) + column + start;
            MatrixProduct.MultiplyPanels(h, _width, size, length, v, (long)length * Lanes, Lanes, image, Lanes, accumulate: false);
            slopes.Clear();
            curvatures.Clear();
            for (int i = 0; i < length; i++)
            {
                ReadOnlySpan<float> own = new(v + (i * Lanes), Lanes);
                Span<float> own2 = new(image + ((at + start + i) * Lanes), Lanes);
                TensorPrimitives.MultiplyAdd(own, _hessian.Added[column + start + i], own2, own2);
                TensorPrimitives.MultiplyAdd(own, own2, curvatures, curvatures);
                TensorPrimitives.MultiplyAdd(own, new ReadOnlySpan<float>(sums + ((long)(at + start + i) * RowStride), Lanes), slopes, slopes);
            }

            bool isChanged = false;
            for (int lane = 0; lane < rows; lane++)
            {
                changes[lane] = Change(Block((panel * Lanes) + lane, column), parameter, slopes[lane], curvatures[lane]);
                isChanged |= changes[lane] != 0;
            }

            if (!isChanged) continue;
            for (int i = 0; i < size; i++)
            {
                Span<float> sum = new(sums + ((long)i * RowStride), Lanes);
                for (int lane = 0; lane < Lanes; lane++) sum[lane] -= changes[lane] * image[(i * Lanes) + lane];
            }

            for (int lane = 0; lane < rows; lane++)
            {
                if (changes[lane] == 0) continue;
                int row = (panel * Lanes) + lane;
                Span<float> parameters = Block(row, column);
                for (int sub = firstSub; sub < firstSub + subCount; sub++)
                {
                    Levels levels = _codec.GetLevels(parameters, sub);
                    SetLevels(row, (column / subLength) + sub, levels);
                    for (int i = sub * subLength; i < (sub + 1) * subLength; i++) errors[(i * Lanes) + lane] = weights[(i * Lanes) + lane] - levels.Value(_codes[CodeIndex(row, column + i)]);
                }
            }
        }
    }

    /// <summary>The parameters of the block that a column belongs to.</summary>
    private Span<float> Block(int row, int column) =>
        _parameters.AsSpan(((row * (_width / _shape.BlockLength)) + (column / _shape.BlockLength)) * _shape.ParameterCount, _shape.ParameterCount);

    /// <summary>Gives a parameter its best stored value; returns by how much it changed.</summary>
    private float Change(Span<float> parameters, int parameter, float slope, float curvature)
    {
        float old = parameters[parameter];
        if (!(curvature > 0) || float.IsNaN(old)) return 0;
        float stored = _codec.Store(parameter, old + (slope / curvature)), change = stored - old;
        if (change == 0 || !(change * ((2 * slope) - (change * curvature)) > 0)) return 0;
        parameters[parameter] = stored;
        return change;
    }

    /// <summary>What values gain when a parameter grows by one, <see cref="Lanes"/> floats apart.</summary>
    private void Direction(int row, int column, int parameter, int firstSub, int subCount, float* direction)
    {
        int subLength = _shape.SubBlockLength;
        Span<float> parameters = Block(row, column);
        float old = parameters[parameter];
        for (int sub = 0; sub < subCount; sub++)
        {
            parameters[parameter] = 1;
            Levels one = _codec.GetLevels(parameters, firstSub + sub);
            parameters[parameter] = 0;
            Levels zero = _codec.GetLevels(parameters, firstSub + sub);
            ref byte codes = ref _codes[CodeIndex(row, column + ((firstSub + sub) * subLength))];
            for (int i = 0; i < subLength; i++)
            {
                byte code = System.Runtime.CompilerServices.Unsafe.Add(ref codes, i * Lanes);
                direction[((sub * subLength) + i) * Lanes] = one.Value(code) - zero.Value(code);
            }
        }

        parameters[parameter] = old;
    }
}
