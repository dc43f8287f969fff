using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>
/// Searches for scale and bias of groups whose values are <c>scale * code + bias</c>: the line of least weighted squared error, then by that error the best of what can
/// be stored near it and of MLX's own choice. Each lane is a group of its own: value i of lane g lies at <c>i * 16 + g</c>.
/// </summary>
/// <param name="largestCode">2^bits - 1.</param>
/// <param name="hasHalves">Scale and bias are halves, else bfloat16.</param>
internal sealed class AffineGridSearch(int largestCode, bool hasHalves)
{
    /// <summary>MLX's least scale.</summary>
    public const float LeastScale = 1e-7f;

    /// <summary>Scales beside the nearest one that are tried, by steps of their last place: among many codes its rounding moves the ends of the grid.</summary>
    private int Neighbours => largestCode > 15 && !hasHalves ? 1 : 0;

    /// <summary>What is tried before scale and bias are rounded.</summary>
    private static AffineStart Start(Effort effort) => effort switch
    {
        Effort.Fast => new(4, 1, 3),
        Effort.Normal => new(12, 3, 2),
        _ => new(48, 5, 3),
    };

    /// <summary>Fits groups of <paramref name="length"/> values in lanes of <typeparamref name="T"/>.</summary>
    public void Fit<T>(ref readonly float values, ref readonly float weights, int length, Effort effort, ref float scales, ref float biases) where T : unmanaged, ILanes<T>
    {
        AffineSearch.Totals<T> totals = AffineSearch.Sum<T>(in values, in weights, length, isFree: true);
        Mlx(totals.Low, totals.High, out T scale, out T bias);
        (scale, bias) = (Store(scale), Store(bias));
        if (effort != Effort.Reference)
        {
            AffineSearch.Measure(in values, in weights, length, largestCode, scale, LaneMath.Negate(bias), out T error);
            (T step, T offset) = AffineSearch.Start(in values, in weights, length, largestCode, true, in totals, Start(effort));
            for (int n = -Neighbours; n <= Neighbours; n++)
            {
                T tried = Store(step * T.Broadcast(1 + (n / 256f)));
                T origin = Store(LaneMath.Negate(AffineSearch.Offset(in values, in weights, length, largestCode, in totals, tried, offset)));
                AffineSearch.Measure(in values, in weights, length, largestCode, tried, LaneMath.Negate(origin), out T found);
                T better = T.Greater(error, found);
                error = T.Select(better, found, error);
                scale = T.Select(better, tried, scale);
                bias = T.Select(better, origin, bias);
            }
        }

        T.Store(scale, ref scales);
        T.Store(bias, ref biases);
    }

    /// <summary>MLX's affine quantization, before its parameters are stored: an end of the range is met exactly, and zero is a code.</summary>
    public void Mlx<T>(T low, T high, out T scale, out T bias) where T : unmanaged, ILanes<T>
    {
        scale = T.Max((high - low) / T.Broadcast(largestCode), T.Broadcast(LeastScale));
        T isLow = T.Greater(LaneMath.Abs(low), LaneMath.Abs(high));
        T edge = T.Select(isLow, low, high);
        scale = T.Select(isLow, scale, LaneMath.Negate(scale));
        T code = Nearest(edge / scale);
        T isNone = T.Equal(code, T.Broadcast(0));
        scale = T.Select(isNone, scale, edge / code);
        bias = T.Select(isNone, T.Broadcast(0), edge);
    }

    /// <summary>The nearest integer, ties to even, whatever the magnitude: a group far from zero has its edge at code millions.</summary>
    private static T Nearest<T>(T value) where T : unmanaged, ILanes<T>
    {
        // From 2^23 on every float is an integer.
        T whole = T.Broadcast(8388608f), sign = value & T.Broadcast(-0f), magnitude = LaneMath.Abs(value);
        return T.Select(T.Greater(whole, magnitude), (magnitude + whole) - whole, magnitude) | sign;
    }

    /// <summary>Codes as floats.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public T Code<T>(T value, T scale, T bias) where T : unmanaged, ILanes<T> => LaneMath.Clamp(LaneMath.RoundToEven((value - bias) / scale), 0, largestCode);

    public T Store<T>(T value) where T : unmanaged, ILanes<T>
    {
        if (hasHalves) return StoredHalf.Round(value);
        // To the upper half of the float, ties to even.
        T rounded = T.AddInt(T.AddInt(value, T.BroadcastInt(0x7fff)), T.ShiftRight(value, 16) & T.BroadcastInt(1));
        return rounded & T.BroadcastInt(unchecked((int)0xffff0000));
    }
}
