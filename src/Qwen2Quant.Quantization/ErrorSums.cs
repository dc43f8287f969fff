using System.Buffers;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>
/// What encoding lost: sums over values of the squared error and of the square. Rows are summed each by itself, in 16 interleaved parts folded in a fixed
/// order, and added in order of their index, so that the sums depend neither on the vector width nor on how rows are cut into slabs handed over in order.
/// </summary>
public sealed class ErrorSums
{
    public double SquaredError { get; private set; }
    public double SquaredValue { get; private set; }
    public long ValueCount { get; private set; }

    public ErrorSums()
    {
    }

    /// <summary>Sums that were taken before.</summary>
    public ErrorSums(double squaredError, double squaredValue, long valueCount) => (SquaredError, SquaredValue, ValueCount) = (squaredError, squaredValue, valueCount);

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
                (double error, double square) = ErrorRows.Sum(slab.Values.Slice(r * slab.RowLength, slab.RowLength), row);
                SquaredError += error;
                SquaredValue += square;
            }

            ValueCount += slab.Values.Length;
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
}
