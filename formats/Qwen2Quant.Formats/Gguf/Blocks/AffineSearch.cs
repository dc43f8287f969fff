using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Roundings tried for a step and an offset before they are rounded themselves.</summary>
/// <param name="Tries">Steps tried, an even number.</param>
/// <param name="Phases">Offsets tried with each, spread over one step.</param>
/// <param name="Sweeps">Alternations of nearest codes and best line, from the best of the tries.</param>
internal readonly record struct AffineStart(int Tries, int Phases, int Sweeps)
{
    /// <summary>Code steps that try <paramref name="n"/> lays over the range: within an eighth of <paramref name="limit"/>, the greatest code, and a half on either side.</summary>
    public float CodesOverRange(int n, int limit) => limit + ((limit + 4) * 0.125f * ((2 * n) - Tries) / Tries);
}

/// <summary>Pairs of integer scale and minimum tried around a pair: scales up to so far on either side, for each so many times four minima.</summary>
internal readonly record struct AffineWindow(int ScaleRadius, int MinimumQuads);

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

    /// <summary>A group's least and greatest value, and its sums of weight and of weight x (value - least).</summary>
    public readonly struct Totals<T>(T low, T high, T weight, T above) where T : unmanaged, ILanes<T>
    {
        public readonly T Low = low, High = high, Weight = weight, Above = above;
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

    /// <summary>The best line <c>step * code - offset</c> so far through values above their least.</summary>
    private struct Line<T>(T step, T offset) where T : unmanaged, ILanes<T>
    {
        private T _explained = T.Broadcast(float.NegativeInfinity);

        public T Step = step, Offset = offset;

        /// <summary>The least-squares line of codes explains <c>step * sum wlx - offset * sum wx</c> of <c>sum wx^2</c>; the rest is its error.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Improve(in Totals<T> totals, in Moments<T> moments, bool isFree)
        {
            T squares = totals.Weight * moments.Code2;
            T determinant = squares - (moments.Code * moments.Code);
            // Codes that are all equal determine no line; what the difference leaves of them then is rounding.
            T isLine = T.Greater(determinant, squares * T.Broadcast(4e-6f));
            T inverse = T.Broadcast(1) / determinant;
            T step = ((totals.Weight * moments.CodeValue) - (totals.Above * moments.Code)) * inverse;
            T offset = ((moments.Code * moments.CodeValue) - (moments.Code2 * totals.Above)) * inverse;
            if (!isFree)
            {
                // Of the values themselves the offset must not be negative: the best line with none is that of step alone.
                T isNegative = T.Greater(totals.Low, offset);
                step = T.Select(isNegative, (moments.CodeValue + (totals.Low * moments.Code)) / moments.Code2, step);
                offset = T.Select(isNegative, totals.Low, offset);
                T fitted = (step * moments.CodeValue) - (offset * totals.Above);
                T square = (step * ((step * moments.Code2) - (offset * (moments.Code + moments.Code)))) + (offset * offset * totals.Weight);
                Keep(isLine, fitted + fitted - square, step, offset);
                return;
            }

            Keep(isLine, (step * moments.CodeValue) - (offset * totals.Above), step, offset);
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void Keep(T isLine, T explained, T step, T offset)
        {
            T better = isLine & T.Greater(explained, _explained);
            _explained = T.Select(better, explained, _explained);
            Step = T.Select(better, step, Step);
            Offset = T.Select(better, offset, Offset);
        }
    }

    /// <param name="isFree">False where the least value is to be at most zero, because an offset must not be negative.</param>
    public static Totals<T> Sum<T>(ref readonly float values, ref readonly float weights, int length, bool isFree) where T : unmanaged, ILanes<T>
    {
        T low = Search.At<T>(in values, 0);
        T high = low;
        for (int i = 1; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
        }

        if (!isFree) low = T.Min(low, T.Broadcast(0));
        T sumW = T.Broadcast(0), above = sumW;
        for (int i = 0; i < length; i++)
        {
            T weight = Search.At<T>(in weights, i);
            sumW += weight;
            above = T.MultiplyAdd(weight, Search.At<T>(in values, i) - low, above);
        }

        return new(low, high, sumW, above);
    }

    /// <summary>
    /// A step and an offset, not yet rounded. Of roundings that lay the codes over more or less than the group's range, from its least value or from a little beside it,
    /// the one whose least-squares line leaves the least error; then, several times, the codes nearest to the line and the best line of those codes.
    /// </summary>
    /// <param name="isFree">True where an offset may be negative.</param>
    public static (T Step, T Offset) Start<T>(ref readonly float values, ref readonly float weights, int length, int limit, bool isFree, in Totals<T> totals, AffineStart start)
        where T : unmanaged, ILanes<T>
    {
        T range = totals.High - totals.Low;
        T inverseRange = LaneMath.FiniteInverse(range);
        T step = range * T.Broadcast(1f / limit);
        Line<T> best = new(step, T.Broadcast(0));
        Rounder<T> rounder = new(limit);
        for (int phase = 0; phase < start.Phases; phase++)
        {
            T shift = (step * T.Broadcast((phase - ((start.Phases - 1) / 2)) * (1f / start.Phases))) - totals.Low;
            for (int n = 0; n < start.Tries; n += 2)
            {
                T inverse0 = T.Broadcast(start.CodesOverRange(n, limit)) * inverseRange, inverse1 = T.Broadcast(start.CodesOverRange(n + 1, limit)) * inverseRange;
                Moments<T> moments0 = default, moments1 = default;
                for (int i = 0; i < length; i++)
                {
                    T value = Search.At<T>(in values, i);
                    T weight = Search.At<T>(in weights, i);
                    T above = value - totals.Low;
                    T shifted = value + shift;
                    moments0.Add(rounder.Code(shifted, inverse0), weight, above);
                    moments1.Add(rounder.Code(shifted, inverse1), weight, above);
                }

                best.Improve(in totals, in moments0, isFree);
                best.Improve(in totals, in moments1, isFree);
            }
        }

        for (int n = 0; n < start.Sweeps; n++)
        {
            T inverse = LaneMath.FiniteInverse(best.Step);
            Moments<T> moments = default;
            for (int i = 0; i < length; i++)
            {
                T above = Search.At<T>(in values, i) - totals.Low;
                moments.Add(rounder.Code(above + best.Offset, inverse), Search.At<T>(in weights, i), above);
            }

            best.Improve(in totals, in moments, isFree);
        }

        return (best.Step, best.Offset - totals.Low);
    }

    /// <summary>Moments, of the values themselves, and the error of the codes nearest under a step and an offset.</summary>
    public static Moments<T> Measure<T>(ref readonly float values, ref readonly float weights, int length, int limit, T step, T offset, out T error) where T : unmanaged, ILanes<T>
    {
        T inverse = LaneMath.FiniteInverse(step);
        T negative = LaneMath.Negate(step);
        Rounder<T> rounder = new(limit);
        Moments<T> moments = default;
        T sum = T.Broadcast(0);
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            T shifted = value + offset;
            T code = rounder.Code(shifted, inverse);
            T difference = T.MultiplyAdd(code, negative, shifted);
            sum = T.MultiplyAdd(weight * difference, difference, sum);
            moments.Add(code, weight, value);
        }

        error = sum;
        return moments;
    }

    /// <summary>Sum of weight x value^2.</summary>
    public static T Squares<T>(ref readonly float values, ref readonly float weights, int length) where T : unmanaged, ILanes<T>
    {
        T sum = T.Broadcast(0);
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            sum = T.MultiplyAdd(Search.At<T>(in weights, i) * value, value, sum);
        }

        return sum;
    }

    /// <summary>
    /// The integer scale and minimum of each lane under stored units. Scales near the given one are tried, each with minima near the one that keeps the mean where
    /// it is; the pair whose nearest codes lose least is kept.
    /// </summary>
    /// <param name="meanCode">Weighted mean of the codes so far.</param>
    /// <param name="mean">Weighted mean of the values.</param>
    /// <param name="error">The error of the given pair; receives that of the pair that is kept.</param>
    public static void Lattice<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, int scaleLimit, T scaleUnit, T minimumUnit, T meanCode, T mean, AffineWindow window,
        ref T scale, ref T minimum, ref T error) where T : unmanaged, ILanes<T>
    {
        T centre = scale;
        T inverseUnit = LaneMath.FiniteInverse(minimumUnit);
        for (int a = -window.ScaleRadius; a <= window.ScaleRadius; a++)
        {
            T trial = LaneMath.Clamp(centre + T.Broadcast(a), 0, scaleLimit);
            T step = scaleUnit * trial;
            T middle = LaneMath.RoundToEven(LaneMath.Clamp(((step * meanCode) - mean) * inverseUnit, 0, scaleLimit));
            for (int first = -2 * window.MinimumQuads; first < 2 * window.MinimumQuads; first += 4)
            {
                T b0 = LaneMath.Clamp(middle + T.Broadcast(first), 0, scaleLimit), b1 = LaneMath.Clamp(middle + T.Broadcast(first + 1), 0, scaleLimit);
                T b2 = LaneMath.Clamp(middle + T.Broadcast(first + 2), 0, scaleLimit), b3 = LaneMath.Clamp(middle + T.Broadcast(first + 3), 0, scaleLimit);
                Errors(in values, in weights, length, limit, step, minimumUnit * b0, minimumUnit * b1, minimumUnit * b2, minimumUnit * b3, out T e0, out T e1, out T e2, out T e3);
                Keep(e0, trial, b0, ref error, ref scale, ref minimum);
                Keep(e1, trial, b1, ref error, ref scale, ref minimum);
                Keep(e2, trial, b2, ref error, ref scale, ref minimum);
                Keep(e3, trial, b3, ref error, ref scale, ref minimum);
            }
        }
    }

    /// <summary>Weighted squared errors of the codes nearest under one step and four offsets.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Errors<T>(
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

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Round<T>(T value, int limit) where T : unmanaged, ILanes<T> => LaneMath.RoundToEven(LaneMath.Clamp(value, 0, limit));
}
