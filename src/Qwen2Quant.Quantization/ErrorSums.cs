using System.Buffers;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>
/// What encoding lost: sums over values of the squared error and of the square. Rows are summed each by itself, in 16 interleaved parts folded in a fixed
/// order, and added in order of their index, so that the sums depend neither on the vector width nor on how rows are cut into slabs handed over in order.
/// </summary>
public sealed class ErrorSums
{
    private const int Parts = 16;

    public double SquaredError { get; private set; }
    public double SquaredValue { get; private set; }
    public long ValueCount { get; private set; }

    /// <summary>Root mean square of the error; 0 without values.</summary>
    public double Rmse => ValueCount == 0 ? 0 : Math.Sqrt(SquaredError / ValueCount);

    /// <summary>Root of squared error over squared value; 0 where the error is.</summary>
    public double RelativeError => SquaredError == 0 ? 0 : Math.Sqrt(SquaredError / SquaredValue);

    /// <summary>Adds rows and their encoded form.</summary>
    public void Add(RowSlab slab, ElementType type, ReadOnlySpan<byte> encoded)
    {
        int rowBytes = checked((int)type.ByteCount(slab.RowLength));
        float[] decoded = ArrayPool<float>.Shared.Rent(slab.RowLength);
        try
        {
            Span<float> row = decoded.AsSpan(0, slab.RowLength);
            for (int r = 0; r < slab.RowCount; r++)
            {
                type.Decode(encoded.Slice(r * rowBytes, rowBytes), row);
                AddRow(slab.Values.Slice(r * slab.RowLength, slab.RowLength), row);
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(decoded);
        }
    }

    /// <summary>Adds the sums of the slab that follows, of the same tensor.</summary>
    public void Add(ErrorSums next)
    {
        SquaredError += next.SquaredError;
        SquaredValue += next.SquaredValue;
        ValueCount += next.ValueCount;
    }

    private void AddRow(ReadOnlySpan<float> values, ReadOnlySpan<float> decoded)
    {
        Span<double> errors = stackalloc double[Parts];
        Span<double> squares = stackalloc double[Parts];
        errors.Clear();
        squares.Clear();
        for (int start = 0; start < values.Length; start += Parts)
        {
            int length = Math.Min(Parts, values.Length - start);
            for (int i = 0; i < length; i++)
            {
                double value = values[start + i];
                double difference = decoded[start + i] - value;
                errors[i] += difference * difference;
                squares[i] += value * value;
            }
        }

        SquaredError += Fold(errors);
        SquaredValue += Fold(squares);
        ValueCount += values.Length;
    }

    private static double Fold(Span<double> parts)
    {
        for (int half = Parts / 2; half > 0; half /= 2)
        {
            for (int i = 0; i < half; i++) parts[i] += parts[i + half];
        }

        return parts[0];
    }
}
