using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Super-blocks of 16 sub-blocks of 16 values under a half d and signed integer scales (Q3_K, Q6_K): the search for these parameters by the weighted squared
/// error that they leave as they are stored, and the codes under them.
/// </summary>
internal static class SignedSubBlocks
{
    private const int Count = 16;
    private const int Length = 16;
    private const int Values = Count * Length;

    // What is tried for d, as fractions of the scale limit that the largest scale takes.
    private static ReadOnlySpan<float> Tops => [1, 0.98f, 0.96f, 0.94f, 0.92f, 0.9f, 1.04f, 1.1f, 1.2f, 1.35f];

    /// <summary>d as the scale of each of a block's eight runs of 32 values, <paramref name="stride"/> floats apart.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Spread(float d, ref float scales, int stride)
    {
        for (int run = 0; run < 8; run++) Unsafe.Add(ref scales, run * stride) = d;
    }

    /// <summary>Finds d, then the 16 scales of -<paramref name="scaleLimit"/> to <paramref name="scaleLimit"/> - 1. All are 0 for a block of zeros.</summary>
    /// <param name="importance">Empty or 256 weights.</param>
    [SkipLocalsInit]
    public static void Search<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, int limit, int scaleLimit, Effort effort, Span<float> parameters)
        where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[Values];
        Span<float> weightLanes = stackalloc float[Values];
        Blocks.Search.Transpose(values, Length, lanes);
        if (!importance.IsEmpty) Blocks.Search.Transpose(importance, Length, weightLanes);
        ReadOnlySpan<float> weights = importance.IsEmpty ? SymmetricSearch.Ones : weightLanes;
        Span<float> scales = stackalloc float[Count];
        ReadOnlySpan<float> trials = SymmetricSearch.Trials(limit, !importance.IsEmpty, effort);
        float top = 0;
        for (int g = 0; g < Count; g += T.Width)
        {
            SymmetricSearch.Scales<T>(in lanes[g], in weights[g], Length, limit, !importance.IsEmpty, trials, ref scales[g]);
            top = MathF.Max(top, T.MaxAcross(LaneMath.Abs(Block32.At<T>(in scales[0], g))));
        }

        if (top == 0)
        {
            parameters.Clear();
            return;
        }

        Span<float> integers = parameters[1..];
        parameters[0] = StoredAtLeast(top / scaleLimit);
        for (int g = 0; g < Count; g += T.Width) T.Store(Integer(Block32.At<T>(in scales[0], g) / T.Broadcast(parameters[0]), scaleLimit), ref integers[g]);
        if (effort != Effort.Fast || !importance.IsEmpty) Refine<T>(lanes, weights, scales, top, limit, scaleLimit, importance.IsEmpty, effort, parameters);
        // At more bits so little of the values is lost that the half d hardly changes.
        if (limit == 4) parameters[0] = GainPreserving<T>(lanes, weights, limit, parameters[0], integers);
    }

    /// <summary>Improves d and the integers together.</summary>
    private static void Refine<T>(
        ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, ReadOnlySpan<float> scales, float top, int limit, int scaleLimit, bool isUnweighted, Effort effort,
        Span<float> parameters)
        where T : unmanaged, ILanes<T>
    {
        Span<float> integers = parameters[1..];
        ReadOnlySpan<float> others = effort == Effort.High ? SymmetricSearch.Trials(limit, !isUnweighted, Effort.Normal) : [];
        Span<float> trial = stackalloc float[Count];
        float best = float.PositiveInfinity;
        // Without importance a second d would take 0.1 to 0.3 % off the error of Q3_K, for half as much time again.
        (int tops, int refits, int quads) = effort == Effort.High ? (Tops.Length, 2, 2) : (1, limit == 4 && isUnweighted ? 0 : 1, 1);
        foreach (float fraction in Tops[..tops])
        {
            float d = StoredAtLeast(top / (scaleLimit * fraction));
            for (int refit = 0; ; refit++)
            {
                float error = Integers<T>(lanes, weights, scales, limit, scaleLimit, d, quads, others, trial);
                if (!(error < best)) break;
                best = error;
                parameters[0] = d;
                trial.CopyTo(integers);
                float next = refit == refits ? d : Refit<T>(lanes, weights, limit, d, trial);
                if (next == d) break;
                d = next;
            }
        }
    }

    /// <summary>Codes 0 to 2 x <paramref name="limit"/> - 1, nearest under d and the scales; the middle one where their product is zero.</summary>
    [SkipLocalsInit]
    public static void Codes<T>(ReadOnlySpan<float> values, int limit, ReadOnlySpan<float> parameters, ref byte codes) where T : unmanaged, ILanes<T>
    {
        Span<float> inverses = stackalloc float[Count];
        for (int k = 0; k < Count; k += T.Width) T.Store(LaneMath.FiniteInverse(T.Broadcast(parameters[0]) * Block32.At<T>(in parameters[1], k)), ref inverses[k]);
        // The low bytes of the rounded sums are the codes.
        (T low, T middle, T high) = (T.Broadcast(SymmetricSearch.Rounding), T.Broadcast(SymmetricSearch.Rounding + limit), T.Broadcast(SymmetricSearch.Rounding + (2 * limit) - 1));
        for (int k = 0; k < Count; k++)
        {
            T inverse = T.Broadcast(inverses[k]);
            for (int i = k * Length; i < (k + 1) * Length; i += T.Width)
            {
                T.StoreBytes(T.Max(T.Min(T.MultiplyAdd(Block32.At<T>(in values[0], i), inverse, middle), high), low), ref Unsafe.Add(ref codes, i));
            }
        }
    }

    /// <summary>
    /// Given d, the best of <c>4 * quads</c> integers about each sub-block's own scale and of those next to <paramref name="trials"/>. Returns the weighted squared error
    /// of the block.
    /// </summary>
    private static float Integers<T>(
        ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, ReadOnlySpan<float> scales, int limit, int scaleLimit, float d, int quads,
        ReadOnlySpan<float> trials, Span<float> integers)
        where T : unmanaged, ILanes<T>
    {
        Span<float> errors = stackalloc float[Count];
        T factor = T.Broadcast(d);
        for (int g = 0; g < Count; g += T.Width)
        {
            T quotient = Block32.At<T>(in scales[0], g) / factor;
            // One more integer on the side of larger scales, which leave less of a value's magnitude out of reach.
            T away = T.Select(T.Greater(quotient, T.Broadcast(0)), T.Broadcast(1), T.Broadcast(-1));
            T best = T.Broadcast(float.PositiveInfinity), step = T.Broadcast(0);
            for (int quad = 0; quad < quads; quad++)
            {
                T middle = quotient + (away * T.Broadcast((4 * quad) - (2 * (quads - 1))));
                SymmetricSearch.KeepNearest(
                    in lanes[g], in weights[g], Length, limit,
                    Integer(middle, scaleLimit) * factor, Integer(middle - away, scaleLimit) * factor, Integer(middle + away, scaleLimit) * factor,
                    Integer(middle + away + away, scaleLimit) * factor, ref best, ref step);
            }

            T extreme = trials.IsEmpty ? best : SymmetricSearch.Extreme<T>(in lanes[g], Length);
            for (int t = 0; t < trials.Length; t += 4)
            {
                SymmetricSearch.KeepNearest(
                    in lanes[g], in weights[g], Length, limit,
                    Integer(extreme / T.Broadcast(limit * trials[t] * d), scaleLimit) * factor, Integer(extreme / T.Broadcast(limit * trials[t + 1] * d), scaleLimit) * factor,
                    Integer(extreme / T.Broadcast(limit * trials[t + 2] * d), scaleLimit) * factor, Integer(extreme / T.Broadcast(limit * trials[t + 3] * d), scaleLimit) * factor,
                    ref best, ref step);
            }

            T.Store(LaneMath.RoundToEven(step / factor), ref integers[g]);
            T.Store(best, ref errors[g]);
        }

        float total = 0;
        foreach (float error in errors) total += error;
        return total;
    }

    /// <summary>The best d for the codes that are nearest under <paramref name="d"/>, as it is stored; <paramref name="d"/> itself where there is none.</summary>
    private static float Refit<T>(ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, int limit, float d, ReadOnlySpan<float> integers) where T : unmanaged, ILanes<T>
    {
        (float sumXl, float sumLl) = Sums<T>(lanes, weights, limit, d, integers);
        return StoredOr(sumXl / sumLl, d);
    }

    /// <summary>
    /// <paramref name="d"/> enlarged by what the codes nearest under it lose in <see cref="Gain"/>.
    /// </summary>
    private static float GainPreserving<T>(ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, int limit, float d, ReadOnlySpan<float> integers) where T : unmanaged, ILanes<T>
    {
        Span<float> squares = stackalloc float[Count];
        for (int g = 0; g < Count; g += T.Width) T.Store(AffineSearch.Squares<T>(in lanes[g], in weights[g], Length), ref squares[g]);
        float sumXx = 0;
        foreach (float square in squares) sumXx += square;
        return StoredOr((float)(d * Gain.Factor(sumXx, d * Sums<T>(lanes, weights, limit, d, integers).Xl)), d);
    }

    /// <summary>Sums over the block of weight x value x level and of weight x level^2, where a level is a code, nearest under d, times its integer scale.</summary>
    private static (float Xl, float Ll) Sums<T>(ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, int limit, float d, ReadOnlySpan<float> integers)
        where T : unmanaged, ILanes<T>
    {
        Span<float> xl = stackalloc float[Count];
        Span<float> ll = stackalloc float[Count];
        for (int g = 0; g < Count; g += T.Width)
        {
            (T groupXl, T groupLl) = SymmetricSearch.Sums(in lanes[g], in weights[g], Length, limit, Block32.At<T>(in integers[0], g) * T.Broadcast(d));
            T.Store(groupXl, ref xl[g]);
            T.Store(groupLl, ref ll[g]);
        }

        float sumXl = 0, sumLl = 0;
        for (int k = 0; k < Count; k++)
        {
            sumXl += xl[k] * integers[k];
            sumLl += ll[k] * integers[k] * integers[k];
        }

        return (sumXl, sumLl);
    }

    private static float StoredOr(float next, float d)
    {
        next = (float)(Half)next;
        return next > 0 && next <= StoredHalf.Largest ? next : d;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Integer<T>(T quotient, int scaleLimit) where T : unmanaged, ILanes<T> =>
        LaneMath.RoundToEven(LaneMath.Clamp(quotient, -scaleLimit, scaleLimit - 1));

    /// <summary>The half next to a positive scale, not below it, so that the largest sub-block's scale stays within reach where d is a denormal half.</summary>
    private static float StoredAtLeast(float scale)
    {
        Half stored = (Half)MathF.Min(scale, StoredHalf.Largest);
        return (float)((float)stored < scale && scale < StoredHalf.Largest ? Half.BitIncrement(stored) : stored);
    }
}
