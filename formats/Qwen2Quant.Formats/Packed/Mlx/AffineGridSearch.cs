using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>
/// Searches for scale and bias of groups whose values are <c>scale * code + bias</c>, by the weighted squared error under both as they are stored.
/// Each lane is a group of its own: value i of lane g lies at <c>i * 16 + g</c>. MLX's own choice is among what is tried.
/// </summary>
/// <param name="largestCode">2^bits - 1.</param>
/// <param name="hasHalves">Scale and bias are halves, else bfloat16.</param>
internal sealed class AffineGridSearch(int largestCode, bool hasHalves)
{
    /// <summary>MLX's least scale.</summary>
    public const float LeastScale = 1e-7f;

    /// <summary>How many scales are tried, and how often the best is refitted to its codes by least squares.</summary>
    private static (int Trials, int Refits) Work(Effort effort) => effort switch
    {
        Effort.Fast => (6, 1),
        Effort.Normal => (20, 3),
        _ => (64, 6),
    };

    /// <summary>Fits groups of <paramref name="length"/> values in lanes of <typeparamref name="T"/>.</summary>
    public void Fit<T>(ref readonly float values, ref readonly float weights, int length, Effort effort, ref float scales, ref float biases) where T : unmanaged, ILanes<T>
    {
        T low = T.Broadcast(float.MaxValue), high = T.Broadcast(float.MinValue);
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
        }

        Mlx(low, high, out T scale, out T bias);
        (scale, bias) = (Store(scale), Store(bias));
        if (effort != Effort.Reference)
        {
            T error = Error(in values, in weights, length, scale, bias);
            (int trials, int refits) = Work(effort);
            // From a grid that ends half a code before the extremes to one that cuts off a good part of few codes' range.
            (float least, float most) = (largestCode - 0.5f, largestCode * (largestCode switch { 3 => 2.2f, 7 => 1.7f, 15 => 1.45f, 31 => 1.25f, 63 => 1.1f, _ => 1.03f }));
            T range = high - low, centre = (low + high) * T.Broadcast(0.5f);
            for (int n = 0; n < trials; n++)
            {
                T tried = Store(range / T.Broadcast(least + ((most - least) * n / (trials - 1))));
                Keep(in values, in weights, length, tried, Store(centre - (tried * T.Broadcast(largestCode / 2f))), ref scale, ref bias, ref error);
            }

            for (int pass = 0; pass < refits; pass++)
            {
                Fitted(in values, in weights, length, scale, bias, out T fitted, out T origin);
                Keep(in values, in weights, length, fitted, origin, ref scale, ref bias, ref error);
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
        T code = LaneMath.RoundToEven(edge / scale);
        T isNone = T.Equal(code, T.Broadcast(0));
        scale = T.Select(isNone, scale, edge / code);
        bias = T.Select(isNone, T.Broadcast(0), edge);
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

    private T Error<T>(ref readonly float values, ref readonly float weights, int length, T scale, T bias) where T : unmanaged, ILanes<T>
    {
        T error = T.Broadcast(0);
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T rest = value - ((scale * Code(value, scale, bias)) + bias);
            error = T.MultiplyAdd(rest * Search.At<T>(in weights, i), rest, error);
        }

        return error;
    }

    private void Keep<T>(ref readonly float values, ref readonly float weights, int length, T tried, T origin, ref T scale, ref T bias, ref T error) where T : unmanaged, ILanes<T>
    {
        T found = Error(in values, in weights, length, tried, origin);
        T better = T.Greater(error, found);
        error = T.Select(better, found, error);
        scale = T.Select(better, tried, scale);
        bias = T.Select(better, origin, bias);
    }

    /// <summary>The line of least error through the values over their codes.</summary>
    private void Fitted<T>(ref readonly float values, ref readonly float weights, int length, T scale, T bias, out T fitted, out T origin) where T : unmanaged, ILanes<T>
    {
        T w = T.Broadcast(0), wq = w, wqq = w, wv = w, wqv = w;
        for (int i = 0; i < length; i++)
        {
            // Less the bias, which keeps the sums small.
            T value = Search.At<T>(in values, i) - bias, weight = Search.At<T>(in weights, i), code = LaneMath.Clamp(LaneMath.RoundToEven(value / scale), 0, largestCode), weighted = weight * code;
            w += weight;
            wq += weighted;
            wqq = T.MultiplyAdd(weighted, code, wqq);
            wv = T.MultiplyAdd(weight, value, wv);
            wqv = T.MultiplyAdd(weighted, value, wqv);
        }

        T determinant = (w * wqq) - (wq * wq);
        T slope = ((w * wqv) - (wq * wv)) / determinant;
        T isLine = T.Greater(determinant, T.Broadcast(0)) & T.Greater(LaneMath.Abs(slope), T.Broadcast(LeastScale));
        fitted = Store(T.Select(isLine, slope, scale));
        origin = Store(T.Select(isLine, bias + ((wv - (fitted * wq)) / w), bias));
    }
}
