using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// The scale d of 256 values that become -d, 0 or d. Of any set of values that are not zero the best d is their mean magnitude, and a value belongs to it
/// above d / 2: so the best set is one of the largest magnitudes, and its gain is (sum of weight x magnitude)^2 / sum of weights.
/// </summary>
internal static class Ternary
{
    public const int Length = 256;

    /// <summary>Sums side by side, one for each value modulo this count.</summary>
    private const int Parts = 16;

    /// <summary>Codes 0, 1 and 2 as floats.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Codes<T>(T values, T inverse) where T : unmanaged, ILanes<T> =>
        T.AddInt(LaneMath.RoundAwayToInt(LaneMath.Clamp(values * inverse, -1, 1)), T.BroadcastInt(1));

    /// <summary>ggml's d is the largest magnitude; the others' has the least error that the effort finds, as a half holds it.</summary>
    /// <param name="importance">Empty or one weight for each value.</param>
    public static float Scale<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort) where T : unmanaged, ILanes<T>
    {
        if (effort == Effort.Reference) return Peak<T>(in values[0]);
        (float sum, float weight) = Above<T>(values, importance, -1);
        if (!(weight > 0)) return importance.IsEmpty ? 0 : Scale<T>(values, [], effort);
        float mean = sum / weight;
        if (effort == Effort.High) return StoredHalf.Round(Sweep(values, importance));
        float threshold = effort == Effort.Fast ? 0.8f * mean : BestThreshold<T>(values, importance, mean);
        float scale = mean;
        for (int round = 0; round < 3; round++)
        {
            (sum, weight) = Above<T>(values, importance, threshold);
            if (!(weight > 0)) break;
            scale = sum / weight;
            threshold = scale / 2;
        }

        return StoredHalf.Round(scale);
    }

    private static float Peak<T>(ref readonly float values) where T : unmanaged, ILanes<T>
    {
        T peak = T.Broadcast(0);
        for (int i = 0; i < Length; i += T.Width) peak = T.Max(LaneMath.Abs(Block32.At<T>(in values, i)), peak);
        return T.MaxAcross(peak);
    }

    /// <summary>Sums of weight x magnitude and of weights over magnitudes above a threshold.</summary>
    private static (float Sum, float Weight) Above<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float threshold) where T : unmanaged, ILanes<T>
    {
        Span<float> sums = stackalloc float[Parts];
        Span<float> weights = stackalloc float[Parts];
        T limit = T.Broadcast(threshold);
        for (int part = 0; part < Parts; part += T.Width)
        {
            T sum = T.Broadcast(0), weight = sum;
            for (int i = part; i < Length; i += Parts)
            {
                T magnitude = LaneMath.Abs(Block32.At<T>(in values[0], i));
                T counted = (importance.IsEmpty ? T.Broadcast(1) : Block32.At<T>(in importance[0], i)) & T.Greater(magnitude, limit);
                sum = T.MultiplyAdd(counted, magnitude, sum);
                weight += counted;
            }

            T.Store(sum, ref sums[part]);
            T.Store(weight, ref weights[part]);
        }

        for (int half = Parts / 2; half > 0; half /= 2)
        {
            for (int part = 0; part < half; part++)
            {
                sums[part] += sums[part + half];
                weights[part] += weights[part + half];
            }
        }

        return (sums[0], weights[0]);
    }

    /// <summary>The threshold of greatest gain among 16 from a third of the mean to half the peak, each a constant multiple of the one before; lanes are thresholds.</summary>
    private static float BestThreshold<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float mean) where T : unmanaged, ILanes<T>
    {
        const int count = 16;
        Span<float> thresholds = stackalloc float[count];
        Span<float> gains = stackalloc float[count];
        float threshold = mean / 3;
        float ratio = MathF.Pow(Peak<T>(in values[0]) / 2 / threshold, 1f / count);
        for (int n = 0; n < count; n++, threshold *= ratio) thresholds[n] = threshold;
        for (int n = 0; n < count; n += T.Width)
        {
            T limit = T.Load(in thresholds[n]);
            T sum = T.Broadcast(0), weight = sum;
            for (int i = 0; i < Length; i++)
            {
                T magnitude = LaneMath.Abs(T.Broadcast(values[i]));
                T counted = T.Broadcast(importance.IsEmpty ? 1 : importance[i]) & T.Greater(magnitude, limit);
                sum = T.MultiplyAdd(counted, magnitude, sum);
                weight += counted;
            }

            T.Store(sum * (sum / weight), ref gains[n]);
        }

        int best = 0;
        for (int n = 1; n < count; n++)
        {
            if (gains[n] > gains[best]) best = n;
        }

        return thresholds[best];
    }

    /// <summary>The best set of all: the magnitudes in descending order, summed up to each.</summary>
    private static float Sweep(ReadOnlySpan<float> values, ReadOnlySpan<float> importance)
    {
        Span<float> magnitudes = stackalloc float[Length];
        Span<float> weights = stackalloc float[Length];
        for (int i = 0; i < Length; i++) (magnitudes[i], weights[i]) = (-MathF.Abs(values[i]), importance.IsEmpty ? 1 : importance[i]);
        magnitudes.Sort(weights);
        double sum = 0, weight = 0, best = 0, scale = 0;
        for (int i = 0; i < Length; i++)
        {
            sum -= (double)weights[i] * magnitudes[i];
            weight += weights[i];
            if (!(sum * sum > best * weight)) continue;
            (best, scale) = (sum * sum / weight, sum / weight);
        }

        return (float)scale;
    }
}
