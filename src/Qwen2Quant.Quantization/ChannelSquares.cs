using System.Numerics.Tensors;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>
/// Sums over rows of the square of each channel: the diagonal of the Gram matrix of activations. A square of floats is exact in double
/// precision, and each channel is summed row by row in the order given: the sums depend neither on threads nor on the vector width, nor on
/// how rows are cut into calls.
/// </summary>
public sealed class ChannelSquares
{
    // With their doubles two such tiles lie in a first-level cache.
    private const int ChannelsPerTask = 512;

    private readonly double[] _sums;

    /// <param name="width">Channels: values of one row.</param>
    public ChannelSquares(int width)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        _sums = new double[width];
    }

    public int Width => _sums.Length;

    /// <summary>Rows added.</summary>
    public long RowCount { get; private set; }

    /// <summary>One sum for each channel.</summary>
    public ReadOnlySpan<double> Sums => _sums;

    /// <summary>Adds rows back to back, [rowCount, <see cref="Width"/>].</summary>
    public unsafe void Add(ReadOnlySpan<float> rows, int rowCount, WorkerTeam team)
    {
        int width = Width;
        if (rows.Length != (long)rowCount * width) throw new ArgumentException($"{rows.Length} values are not {rowCount} rows of {width}", nameof(rows));
        fixed (float* pinned = rows)
        {
            float* values = pinned;
            team.Run((width + ChannelsPerTask - 1) / ChannelsPerTask, task =>
            {
                int first = task * ChannelsPerTask;
                Span<double> sums = _sums.AsSpan(first, Math.Min(ChannelsPerTask, width - first));
                Span<double> wide = stackalloc double[ChannelsPerTask];
                wide = wide[..sums.Length];
                for (int row = 0; row < rowCount; row++)
                {
                    TensorPrimitives.ConvertTruncating(new ReadOnlySpan<float>(values + ((long)row * width) + first, sums.Length), wide);
                    TensorPrimitives.MultiplyAdd(wide, wide, sums, sums);
                }
            });
        }

        RowCount += rowCount;
    }

    /// <summary>Adds the sums of other rows of the same input.</summary>
    public void Add(ChannelSquares other)
    {
        if (other.Width != Width) throw new ArgumentException($"{other.Width} channels, not {Width}", nameof(other));
        TensorPrimitives.Add(_sums, other._sums, _sums);
        RowCount += other.RowCount;
    }
}
