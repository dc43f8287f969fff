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

    private const int Bins = 256;

    private static readonly float[] Ones = [.. Enumerable.Repeat(1f, Length)];

    /// <summary>Codes 0, 1 and 2 as integer lanes, ties away from zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Codes<T>(T values, T inverse) where T : unmanaged, ILanes<T> =>
        T.AddInt(LaneMath.RoundAwayToInt(LaneMath.Clamp(values * inverse, -1, 1)), T.BroadcastInt(1));

    /// <summary>ggml's d is the largest magnitude; the others' has the least error that the effort finds, as a half holds it.</summary>
    /// <param name="importance">Empty or one weight for each value.</param>
    public static float Scale<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort) where T : unmanaged, ILanes<T>
    {
        if (effort == Effort.Reference) return Peak<T>(in values[0]);
        ref readonly float weights = ref importance.IsEmpty ? ref Ones[0] : ref importance[0];
        (float sum, float weight) = Above<T>(in values[0], in weights, -1);
        if (!(weight > 0)) return importance.IsEmpty ? 0 : Scale<T>(values, [], effort);
        if (sum == 0) return 0;
        float scale = sum / weight;
        float threshold = effort switch
        {
            Effort.Fast => Best<T>(in values[0], in weights, 0.75f * scale, 1.15f * scale, 1.9f * scale, 3.5f * scale).Threshold,
            Effort.Normal => BestOfEight<T>(in values[0], in weights, 0.65f * scale),
            _ => BestBin(values, in weights, Peak<T>(in values[0])),
        };
        for (int round = effort switch { Effort.Fast => 1, Effort.Normal => 2, _ => 8 }; round > 0; round--)
        {
            (sum, weight) = Above<T>(in values[0], in weights, threshold);
            if (!(weight > 0) || scale == sum / weight) break;
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
    private static (float Sum, float Weight) Above<T>(ref readonly float values, ref readonly float weights, float threshold) where T : unmanaged, ILanes<T>
    {
        Span<float> sums = stackalloc float[2 * SixteenSums.Count];
        T limit = T.Broadcast(threshold);
        for (int part = 0; part < SixteenSums.Count; part += T.Width)
        {
            T sum = T.Broadcast(0), weight = sum;
            for (int i = part; i < Length; i += SixteenSums.Count) Add(in values, in weights, i, limit, ref sum, ref weight);
            T.Store(sum, ref sums[part]);
            T.Store(weight, ref sums[SixteenSums.Count + part]);
        }

        return (SixteenSums.Fold<T>(ref sums[0]), SixteenSums.Fold<T>(ref sums[SixteenSums.Count]));
    }

    /// <summary>The one of eight thresholds, each 1.4 times the one before, with the greatest gain. Where few values hold most of the weight it is far above the mean.</summary>
    private static float BestOfEight<T>(ref readonly float values, ref readonly float weights, float least) where T : unmanaged, ILanes<T>
    {
        (float low, float lowGain) = Best<T>(in values, in weights, least, 1.4f * least, 1.96f * least, 2.744f * least);
        float next = 3.842f * least;
        (float high, float highGain) = Best<T>(in values, in weights, next, 1.4f * next, 1.96f * next, 2.744f * next);
        return highGain > lowGain ? high : low;
    }

    /// <summary>The one of four thresholds with the greatest gain.</summary>
    private static (float Threshold, float Gain) Best<T>(ref readonly float values, ref readonly float weights, float threshold0, float threshold1, float threshold2, float threshold3) where T : unmanaged, ILanes<T>
    {
        Span<float> sums = stackalloc float[8 * SixteenSums.Count];
        (T limit0, T limit1, T limit2, T limit3) = (T.Broadcast(threshold0), T.Broadcast(threshold1), T.Broadcast(threshold2), T.Broadcast(threshold3));
        for (int part = 0; part < SixteenSums.Count; part += T.Width)
        {
            T sum0 = T.Broadcast(0), sum1 = sum0, sum2 = sum0, sum3 = sum0, weight0 = sum0, weight1 = sum0, weight2 = sum0, weight3 = sum0;
            for (int i = part; i < Length; i += SixteenSums.Count)
            {
                Add(in values, in weights, i, limit0, ref sum0, ref weight0);
                Add(in values, in weights, i, limit1, ref sum1, ref weight1);
                Add(in values, in weights, i, limit2, ref sum2, ref weight2);
                Add(in values, in weights, i, limit3, ref sum3, ref weight3);
            }

            T.Store(sum0, ref sums[part]);
            T.Store(sum1, ref sums[part + 16]);
            T.Store(sum2, ref sums[part + 32]);
            T.Store(sum3, ref sums[part + 48]);
            T.Store(weight0, ref sums[part + 64]);
            T.Store(weight1, ref sums[part + 80]);
            T.Store(weight2, ref sums[part + 96]);
            T.Store(weight3, ref sums[part + 112]);
        }

        (float best, float bestThreshold) = (0, threshold0);
        for (int n = 0; n < 4; n++)
        {
            float sum = SixteenSums.Fold<T>(ref sums[16 * n]);
            float gain = sum * (sum / SixteenSums.Fold<T>(ref sums[64 + (16 * n)]));
            if (!(gain > best)) continue;
            (best, bestThreshold) = (gain, n switch { 0 => threshold0, 1 => threshold1, 2 => threshold2, _ => threshold3 });
        }

        return (bestThreshold, best);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Add<T>(ref readonly float values, ref readonly float weights, int index, T limit, ref T sum, ref T weight) where T : unmanaged, ILanes<T>
    {
        T magnitude = LaneMath.Abs(Block32.At<T>(in values, index));
        T counted = Block32.At<T>(in weights, index) & T.Greater(magnitude, limit);
        sum = T.MultiplyAdd(counted, magnitude, sum);
        weight += counted;
    }

    /// <summary>The threshold of greatest gain among multiples of 1/256 of the peak.</summary>
    private static float BestBin(ReadOnlySpan<float> values, ref readonly float weights, float peak)
    {
        Span<float> sums = stackalloc float[Bins];
        Span<float> counts = stackalloc float[Bins];
        float unit = StoredHalf.Inverse(peak) * Bins;
        for (int i = 0; i < Length; i++)
        {
            float magnitude = MathF.Abs(values[i]);
            float weight = Unsafe.Add(ref Unsafe.AsRef(in weights), i);
            int bin = (int)MathF.Min(magnitude * unit, Bins - 1);
            sums[bin] += weight * magnitude;
            counts[bin] += weight;
        }

        (float sum, float count, float best, int bestBin) = (0, 0, 0, Bins - 1);
        for (int bin = Bins - 1; bin >= 0; bin--)
        {
            sum += sums[bin];
            count += counts[bin];
            float gain = sum * (sum / count);
            if (gain > best) (best, bestBin) = (gain, bin);
        }

        return bestBin * (peak / Bins);
    }
}
