using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>The roundings that ggml tries: inverse scales <c>(First + Delta * i + limit) / range</c>, i of 0 to <paramref name="Last"/>.</summary>
/// <param name="IsAbsolute">True when they are judged by weighted magnitudes of the error, false by its weighted squares.</param>
internal readonly record struct AffineTries(float First, float Delta, int Last, bool IsAbsolute = false)
{
    /// <summary>What every type tries under importance.</summary>
    public static AffineTries Weighted => new(-0.9f, 0.05f, 36);
}

/// <summary>ggml's searches for a scale and a minimum; groups are lanes as in <see cref="Search"/>.</summary>
internal static class AffineReference
{
    /// <summary>
    /// ggml's <c>make_qkx2_quants</c> and <c>make_qkx3_quants</c>: codes of 0 to <paramref name="limit"/> times a scale plus a minimum that is
    /// not positive; each rounding is anchored at the best minimum so far.
    /// </summary>
    /// <param name="scales">The best scale of each lane, 0 for a group without range.</param>
    /// <param name="minima">The minimum that goes with it.</param>
    /// <param name="inverses">The inverse scale that gave the codes, 0 for a group without range, whose codes are all 0.</param>
    /// <param name="anchors">The minimum under which the codes were rounded.</param>
    public static void Find<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, AffineTries tries, ref float scales, ref float minima, ref float inverses, ref float anchors)
        where T : unmanaged, ILanes<T>
    {
        T zero = T.Broadcast(0);
        T low = Search.At<T>(in values, 0);
        T high = low;
        T sumW = Search.At<T>(in weights, 0);
        T sumX = sumW * low;
        for (int i = 1; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
            sumW += weight;
            sumX += weight * value;
        }

        T minimum = T.Min(low, zero);
        T alive = T.Greater(high, minimum);
        T inverse = T.Broadcast(limit) / (high - minimum);
        T scale = T.Broadcast(1) / inverse;
        (T bestInverse, T anchor) = (inverse, minimum);
        T best = Error<T>(in values, in weights, length, limit, tries.IsAbsolute, inverse, minimum, scale, minimum);
        for (int step = 0; step <= tries.Last; step++)
        {
            inverse = T.Broadcast(tries.First + (tries.Delta * step) + limit) / (high - minimum);
            T sumL = zero, sumL2 = zero, sumXl = zero;
            for (int i = 0; i < length; i++)
            {
                T value = Search.At<T>(in values, i);
                T code = LaneMath.RoundToEven(LaneMath.Clamp(inverse * (value - minimum), 0, limit));
                T weighted = Search.At<T>(in weights, i) * code;
                sumL += weighted;
                sumL2 += weighted * code;
                sumXl += weighted * value;
            }

            T determinant = (sumW * sumL2) - (sumL * sumL);
            T trialScale = ((sumW * sumXl) - (sumX * sumL)) / determinant;
            T trialMinimum = ((sumL2 * sumX) - (sumL * sumXl)) / determinant;
            T positive = T.Greater(trialMinimum, zero);
            trialScale = T.Select(positive, sumXl / sumL2, trialScale);
            trialMinimum = T.Select(positive, zero, trialMinimum);
            T error = Error<T>(in values, in weights, length, limit, tries.IsAbsolute, inverse, minimum, trialScale, trialMinimum);
            T better = T.Greater(determinant, zero) & T.Greater(best, error);
            bestInverse = T.Select(better, inverse, bestInverse);
            anchor = T.Select(better, minimum, anchor);
            best = T.Select(better, error, best);
            scale = T.Select(better, trialScale, scale);
            minimum = T.Select(better, trialMinimum, minimum);
        }

        T.Store(T.Select(alive, scale, zero), ref scales);
        T.Store(minimum, ref minima);
        T.Store(T.Select(alive, bestInverse, zero), ref inverses);
        T.Store(anchor, ref anchors);
    }

    /// <summary>Codes 0 to <paramref name="limit"/>, as integer lanes, of <see cref="Find"/>'s choice.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Codes<T>(T values, T inverse, T anchor, int limit) where T : unmanaged, ILanes<T> =>
        T.ToInt(LaneMath.RoundToEven(LaneMath.Clamp(inverse * (values - anchor), 0, limit)));

    /// <summary>
    /// ggml's <c>make_qp_quants</c>: a scale for values that are not negative, with codes of 0 to <paramref name="limit"/>; the best of nine roundings, then at most five
    /// sweeps over single codes.
    /// </summary>
    /// <returns>The scale, 0 where all values are.</returns>
    public static float Positive(ReadOnlySpan<float> values, ReadOnlySpan<float> weights, int limit, Span<float> codes)
    {
        float peak = 0;
        foreach (float value in values) peak = MathF.Max(peak, value);
        codes.Clear();
        if (peak < Search.Epsilon) return 0;
        float inverse = 0, best = float.PositiveInfinity;
        // The plain rounding first: a try must be better than it.
        foreach (int step in (ReadOnlySpan<int>)[0, -4, -3, -2, -1, 1, 2, 3, 4])
        {
            float trial = ((0.1f * step) + limit) / peak;
            float scale = 1 / trial;
            float error = 0;
            for (int i = 0; i < values.Length; i++)
            {
                float difference = values[i] - (scale * Round(trial * values[i], limit));
                error += weights[i] * difference * difference;
            }

            if (step == 0 || error < best) (best, inverse) = (error, trial);
        }

        float sumXl = 0, sumL2 = 0;
        for (int i = 0; i < values.Length; i++)
        {
            codes[i] = Round(inverse * values[i], limit);
            sumXl += weights[i] * values[i] * codes[i];
            sumL2 += weights[i] * codes[i] * codes[i];
        }

        for (int sweep = 0; sweep < 5 && ImproveCodes(values, weights, limit, codes, ref sumXl, ref sumL2); sweep++)
        {
        }

        return sumL2 > 0 ? sumXl / sumL2 : 0;
    }

    private static bool ImproveCodes(ReadOnlySpan<float> values, ReadOnlySpan<float> weights, int limit, Span<float> codes, ref float sumXl, ref float sumL2)
    {
        bool changed = false;
        for (int i = 0; i < values.Length; i++)
        {
            float trialXl = sumXl - (weights[i] * values[i] * codes[i]);
            float trialL2 = sumL2 - (weights[i] * codes[i] * codes[i]);
            if (!(trialXl > 0 && trialL2 > 0)) continue;
            float code = Round(values[i] * trialL2 / trialXl, limit);
            if (code == codes[i]) continue;
            trialXl += weights[i] * values[i] * code;
            trialL2 += weights[i] * code * code;
            if (trialXl * trialXl * sumL2 > sumXl * sumXl * trialL2) (codes[i], sumXl, sumL2, changed) = (code, trialXl, trialL2, true);
        }

        return changed;
    }

    private static float Round(float value, int limit) => MathF.Min(limit, MathF.Round(value, MidpointRounding.ToEven));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Error<T>(ref readonly float values, ref readonly float weights, int length, int limit, bool isAbsolute, T inverse, T anchor, T scale, T minimum)
        where T : unmanaged, ILanes<T>
    {
        T error = T.Broadcast(0);
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T code = LaneMath.RoundToEven(LaneMath.Clamp(inverse * (value - anchor), 0, limit));
            T difference = (scale * code) + minimum - value;
            error += Search.At<T>(in weights, i) * (isAbsolute ? LaneMath.Abs(difference) : difference * difference);
        }

        return error;
    }
}
