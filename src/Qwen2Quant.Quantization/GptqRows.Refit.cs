using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Quantization;

/// <summary>The parameters of blocks under H, with the codes fixed: coordinate descent over what is stored.</summary>
internal sealed unsafe partial class GptqRows
{
    /// <summary>Longer blocks keep their parameters: the square of H that belongs to one is too large to go through for each row.</summary>
    private const int LongestRefitBlock = 2 * BlockSize;

    /// <summary>
    /// Values y are linear in each parameter: with v the change of y for a change of one, the loss (w - y) H (w - y) is least at a change of v H e / v H v, and among
    /// stored values at the one nearest to that.
    /// </summary>
    private void Refit()
    {
        GridShape shape = _codec.Shape;
        if (shape.BlockLength > LongestRefitBlock) return;
        int span = Math.Max(BlockSize, shape.BlockLength);
        float[] products = new float[_rowCount * span], square = new float[span * span];
        for (int first = 0; first < _width; first += span)
        {
            int size = Math.Min(span, _width - first);
            for (int at = 0; at < size; at += BlockSize)
            {
                Products(first + at, out int count);
                for (int row = 0; row < _rowCount; row++) _products.AsSpan(row * count, count).CopyTo(products.AsSpan((row * size) + at));
                ReadColumns(first, size, at, count, square);
            }

            ReadOnlySpan<float> added = _hessian.Added.Slice(first, size);
            for (int j = 0; j < size; j++) square[(j * size) + j] += added[j];
            for (int row = 0; row < _rowCount; row++)
            {
                Span<float> sums = products.AsSpan(row * size, size);
                TensorPrimitives.MultiplyAdd(_errors.AsSpan((row * _width) + first, size), added, sums, sums);
                for (int at = 0; at < size; at += shape.BlockLength) RefitBlock((row * _width) + first + at, at, sums, square.AsSpan(0, size * size));
            }
        }
    }

    /// <summary>All parameters of one block, those of sub-blocks first.</summary>
    /// <param name="value">Index of its first value.</param>
    /// <param name="at">Its first column among those of <paramref name="sums"/>, H e, and of <paramref name="square"/>, H.</param>
    private void RefitBlock(int value, int at, Span<float> sums, ReadOnlySpan<float> square)
    {
        GridShape shape = _codec.Shape;
        int size = sums.Length, subLength = shape.SubBlockLength;
        Span<float> parameters = _parameters.AsSpan(value / shape.BlockLength * shape.ParameterCount, shape.ParameterCount);
        Span<float> direction = stackalloc float[shape.BlockLength], image = stackalloc float[size];
        for (int parameter = shape.ParameterCount - 1; parameter >= 0; parameter--)
        {
            float old = parameters[parameter];
            if (float.IsNaN(_codec.Store(parameter, old))) continue;
            (int firstSub, int subCount) = _codec.SubBlocksOf(parameter);
            int start = firstSub * subLength, length = subCount * subLength;
            Span<float> v = direction[..length], local = image[..length];
            Direction(value + start, parameter, firstSub, subCount, parameters, v);
            parameters[parameter] = old;
            local.Clear();
            for (int j = 0; j < length; j++) TensorPrimitives.MultiplyAdd(square.Slice(((at + start + j) * size) + at + start, length), v[j], local, local);
            float curvature = TensorPrimitives.Dot(v, local), slope = TensorPrimitives.Dot(v, sums.Slice(at + start, length));
            if (!(curvature > 0)) continue;
            float stored = _codec.Store(parameter, old + (slope / curvature)), change = stored - old;
            if (change == 0 || !(change * ((2 * slope) - (change * curvature)) > 0)) continue;
            parameters[parameter] = stored;
            image.Clear();
            for (int j = 0; j < length; j++) TensorPrimitives.MultiplyAdd(square.Slice((at + start + j) * size, size), v[j], image, image);
            TensorPrimitives.MultiplyAdd(image, -change, sums, sums);
            for (int sub = firstSub; sub < firstSub + subCount; sub++)
            {
                Levels levels = _levels[(value / subLength) + sub] = _codec.GetLevels(parameters, sub);
                for (int i = value + (sub * subLength); i < value + ((sub + 1) * subLength); i++) _errors[i] = _weights[i] - levels.Value(_codes[i]);
            }
        }
    }

    /// <summary>What values gain when a parameter grows by one; leaves the parameter changed.</summary>
    private void Direction(int value, int parameter, int firstSub, int subCount, Span<float> parameters, Span<float> direction)
    {
        int subLength = _codec.Shape.SubBlockLength;
        for (int sub = 0; sub < subCount; sub++)
        {
            parameters[parameter] = 1;
            Levels one = _codec.GetLevels(parameters, firstSub + sub);
            parameters[parameter] = 0;
            Levels zero = _codec.GetLevels(parameters, firstSub + sub);
            for (int i = sub * subLength; i < (sub + 1) * subLength; i++) direction[i] = one.Value(_codes[value + i]) - zero.Value(_codes[value + i]);
        }
    }

    /// <summary>products = E H for the block of columns from <paramref name="column"/> on.</summary>
    private void Products(int column, out int count)
    {
        MatrixProductPanels panels = _hessian.Gram[column / BlockSize];
        count = panels.ColumnCount;
        Multiply(_errors, panels, _width);
    }

    /// <summary>Columns <paramref name="at"/> and on of the square of H that begins at <paramref name="first"/>.</summary>
    private void ReadColumns(int first, int size, int at, int count, float[] square)
    {
        MatrixProductPanels panels = _hessian.Gram[(first + at) / BlockSize];
        for (int row = 0; row < size; row++) ReadRow(panels, first + row, square.AsSpan((row * size) + at, count));
    }
}
