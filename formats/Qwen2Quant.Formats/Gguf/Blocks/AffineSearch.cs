using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Searches for steps and offsets under which values <c>step * code - offset</c> lose the least weighted squared error. Groups are lanes as in
/// <see cref="Search"/>; all sums of a lane run in index order, so every vector width finds the same.
/// </summary>
internal static class AffineSearch
{
    /// <summary>Nearest codes of 0 to a limit: adding 1.5 x 2^23 in one fused step leaves the product's nearest integer, ties to even, in the low bits.</summary>
    private readonly struct Rounder<T>(int limit) where T : unmanaged, ILanes<T>
    {
        private readonly T _floor = T.Broadcast(12582912f), _ceiling = T.Broadcast(12582912f + limit);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public T Code(T shifted, T inverse) => T.Max(T.Min(T.MultiplyAdd(shifted, inverse, _floor), _ceiling), _floor) - _floor;
    }

    /// <summary>Sums of a group under its weights that do not depend on codes.</summary>
    public readonly struct Totals<T>(T low, T high, T weight, T value) where T : unmanaged, ILanes<T>
    {
        public readonly T Low = low, High = high, Weight = weight, Value = value;
    }

    /// <summary>Sums over a group of weight x code, weight x code^2 and weight x code x value.</summary>
    public struct Moments<T> where T : unmanaged, ILanes<T>
    {
        public T Code, Code2, CodeValue;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Add(T code, T weight, T value)
        {
            T weighted = weight * code;
            Code += weighted;
            Code2 = T.MultiplyAdd(weighted, code, Code2);
            CodeValue = T.MultiplyAdd(weighted, value, CodeValue);
        }
    }

    public static Totals<T> Sum<T>(ref readonly float values, ref readonly float weights, int length) where T : unmanaged, ILanes<T>
    {
        T low = Search.At<T>(in values, 0);
        T high = low;
        T sumW = T.Broadcast(0), sumX = T.Broadcast(0);
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
            sumW += weight;
            sumX = T.MultiplyAdd(weight, value, sumX);
        }

        return new(low, high, sumW, sumX);
    }

    /// <summary>
    /// A step and an offset, not yet rounded: of roundings that spread the codes over more or less than the group's range the one whose least-squares line leaves
    /// the least error, then <paramref name="sweeps"/> times the codes nearest to the line and the best line of those codes.
    /// </summary>
    /// <param name="narrowest">Least number of code steps that a try lays over the range; tries are <paramref name="spacing"/> apart.</param>
    /// <param name="isFree">True where an offset may be negative.</param>
    public static (T Step, T Offset) Start<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, bool isFree, in Totals<T> totals, float narrowest, float spacing, int tries, int sweeps)
        where T : unmanaged, ILanes<T>
    {
        T zero = T.Broadcast(0);
        T low = isFree ? totals.Low : T.Min(totals.Low, zero);
        T offset = LaneMath.Negate(low);
        T range = totals.High - low;
        T perRange = LaneMath.FiniteInverse(range);
        T step = range * T.Broadcast(1f / limit), best = T.Broadcast(float.NegativeInfinity), bestOffset = offset;
        Rounder<T> rounder = new(limit);
        for (int n = 0; n < tries; n += 2)
        {
            T inverse0 = T.Broadcast(narrowest + (spacing * n)) * perRange, inverse1 = T.Broadcast(narrowest + (spacing * (n + 1))) * perRange;
            Moments<T> moments0 = default, moments1 = default;
            for (int i = 0; i < length; i++)
            {
                T value = Search.At<T>(in values, i);
                T weight = Search.At<T>(in weights, i);
                T shifted = value + offset;
                moments0.Add(rounder.Code(shifted, inverse0), weight, value);
                moments1.Add(rounder.Code(shifted, inverse1), weight, value);
            }

            KeepBetter(in totals, in moments0, isFree, ref best, ref step, ref bestOffset);
            KeepBetter(in totals, in moments1, isFree, ref best, ref step, ref bestOffset);
        }

        for (int n = 0; n < sweeps; n++)
        {
            Moments<T> moments = Measure(in values, in weights, length, limit, step, bestOffset);
            KeepBetter(in totals, in moments, isFree, ref best, ref step, ref bestOffset);
        }

        return (step, bestOffset);
    }

    /// <summary>Moments of the codes nearest under a step and an offset.</summary>
    public static Moments<T> Measure<T>(ref readonly float values, ref readonly float weights, int length, int limit, T step, T offset) where T : unmanaged, ILanes<T>
    {
        T inverse = LaneMath.FiniteInverse(step);
        Rounder<T> rounder = new(limit);
        Moments<T> moments = default;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            moments.Add(rounder.Code(value + offset, inverse), Search.At<T>(in weights, i), value);
        }

        return moments;
    }

    /// <summary>
    /// The integer scale and minimum of each lane under stored units: those around the given ones are tried, the minima around the one that keeps the mean where
    /// it is, and the pair whose nearest codes lose least is kept.
    /// </summary>
    /// <param name="meanCode">Weighted mean of the codes so far.</param>
    /// <param name="mean">Weighted mean of the values.</param>
    /// <param name="scaleRadius">Scales tried on either side.</param>
    /// <param name="minimumQuads">Minima tried for each scale, in fours.</param>
    /// <param name="error">Receives the error of the pair.</param>
    public static void Lattice<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, int scaleLimit, T scaleUnit, T minimumUnit, T meanCode, T mean,
        int scaleRadius, int scaleStride, int minimumQuads, int minimumStride, ref T scale, ref T minimum, out T error)
        where T : unmanaged, ILanes<T>
    {
        T centre = scale;
        T zero = T.Broadcast(0);
        T inverseUnit = LaneMath.FiniteInverse(minimumUnit);
        // The pair given is one of those tried.
        Quad<T>(in values, in weights, length, limit, scaleUnit * scale, minimumUnit * minimum, minimumUnit * minimum, minimumUnit * minimum, minimumUnit * minimum, out error, out _, out _, out _);
        for (int a = -scaleRadius; a <= scaleRadius; a++)
        {
            T trial = LaneMath.Clamp(centre + T.Broadcast(a * scaleStride), 0, scaleLimit);
            T step = scaleUnit * trial;
            T middle = LaneMath.RoundToEven(LaneMath.Clamp(((step * meanCode) - mean) * inverseUnit, 0, scaleLimit));
            for (int quad = 0; quad < minimumQuads; quad++)
            {
                int first = ((4 * quad) - (2 * minimumQuads)) * minimumStride;
                T b0 = LaneMath.Clamp(middle + T.Broadcast(first), 0, scaleLimit);
                T b1 = LaneMath.Clamp(middle + T.Broadcast(first + minimumStride), 0, scaleLimit);
                T b2 = LaneMath.Clamp(middle + T.Broadcast(first + (2 * minimumStride)), 0, scaleLimit);
                T b3 = LaneMath.Clamp(middle + T.Broadcast(first + (3 * minimumStride)), 0, scaleLimit);
                Quad<T>(in values, in weights, length, limit, step, minimumUnit * b0, minimumUnit * b1, minimumUnit * b2, minimumUnit * b3, out T e0, out T e1, out T e2, out T e3);
                Keep(e0, trial, b0, ref error, ref scale, ref minimum);
                Keep(e1, trial, b1, ref error, ref scale, ref minimum);
                Keep(e2, trial, b2, ref error, ref scale, ref minimum);
                Keep(e3, trial, b3, ref error, ref scale, ref minimum);
            }
        }
    }

    /// <summary>Weighted squared errors of the codes nearest under one step and four offsets.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Quad<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, T step, T o0, T o1, T o2, T o3, out T e0, out T e1, out T e2, out T e3)
        where T : unmanaged, ILanes<T>
    {
        T inverse = LaneMath.FiniteInverse(step);
        T negative = LaneMath.Negate(step);
        Rounder<T> rounder = new(limit);
        T s0 = T.Broadcast(0), s1 = s0, s2 = s0, s3 = s0;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            T y0 = value + o0, y1 = value + o1, y2 = value + o2, y3 = value + o3;
            T d0 = T.MultiplyAdd(rounder.Code(y0, inverse), negative, y0);
            T d1 = T.MultiplyAdd(rounder.Code(y1, inverse), negative, y1);
            T d2 = T.MultiplyAdd(rounder.Code(y2, inverse), negative, y2);
            T d3 = T.MultiplyAdd(rounder.Code(y3, inverse), negative, y3);
            s0 = T.MultiplyAdd(weight * d0, d0, s0);
            s1 = T.MultiplyAdd(weight * d1, d1, s1);
            s2 = T.MultiplyAdd(weight * d2, d2, s2);
            s3 = T.MultiplyAdd(weight * d3, d3, s3);
        }

        (e0, e1, e2, e3) = (s0, s1, s2, s3);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Keep<T>(T error, T scale, T minimum, ref T bestError, ref T bestScale, ref T bestMinimum) where T : unmanaged, ILanes<T>
    {
        T better = T.Greater(bestError, error);
        bestError = T.Select(better, error, bestError);
        bestScale = T.Select(better, scale, bestScale);
        bestMinimum = T.Select(better, minimum, bestMinimum);
    }

    /// <summary>The least-squares line of codes; what it explains, <c>step * sum wlx - offset * sum wx</c>, is what its error falls short of <c>sum wx^2</c>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void KeepBetter<T>(in Totals<T> totals, in Moments<T> moments, bool isFree, ref T best, ref T step, ref T offset) where T : unmanaged, ILanes<T>
    {
        T zero = T.Broadcast(0);
        T determinant = (totals.Weight * moments.Code2) - (moments.Code * moments.Code);
        T inverse = T.Broadcast(1) / determinant;
        T trialStep = ((totals.Weight * moments.CodeValue) - (totals.Value * moments.Code)) * inverse;
        T trialOffset = ((moments.Code * moments.CodeValue) - (moments.Code2 * totals.Value)) * inverse;
        if (!isFree)
        {
            T negative = T.Greater(zero, trialOffset);
            trialStep = T.Select(negative, moments.CodeValue / moments.Code2, trialStep);
            trialOffset = T.Select(negative, zero, trialOffset);
        }

        T explained = (trialStep * moments.CodeValue) - (trialOffset * totals.Value);
        T better = T.Greater(determinant, zero) & T.Greater(explained, best);
        best = T.Select(better, explained, best);
        step = T.Select(better, trialStep, step);
        offset = T.Select(better, trialOffset, offset);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Round<T>(T value, int limit) where T : unmanaged, ILanes<T> => LaneMath.RoundToEven(LaneMath.Clamp(value, 0, limit));
}
