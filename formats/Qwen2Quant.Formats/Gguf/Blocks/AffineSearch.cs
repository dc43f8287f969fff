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
        public T Code(T shifted, T inverse) => Raw(shifted, inverse) - _floor;

        /// <summary>A code plus 1.5 x 2^23: differences of two are exact.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public T Raw(T shifted, T inverse) => T.Max(T.Min(T.MultiplyAdd(shifted, inverse, _floor), _ceiling), _floor);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public T ToCode(T raw) => raw - _floor;
    }

    /// <summary>
    /// A group's least and greatest value, its value of greatest weight (the first of several), and its sums of weight and of weight x (value - that one).
    /// Lines are fitted beside that value: of sums about any other a weight that outweighs all others leaves nothing but rounding.
    /// </summary>
    public readonly struct Totals<T>(T low, T high, T pivot, T weight, T beside) where T : unmanaged, ILanes<T>
    {
        public readonly T Low = low, High = high, Pivot = pivot, Weight = weight, Beside = beside;
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

    /// <summary>The best line <c>step * code - offset</c> so far.</summary>
    private struct Line<T>(T step, T offset) where T : unmanaged, ILanes<T>
    {
        private T _explained = T.Broadcast(float.NegativeInfinity);

        public T Step = step, Offset = offset;

        /// <summary>
        /// With codes l and values x beside those of the pivot, the least-squares line explains <c>step * sum wlx - offset * sum wx</c> of <c>sum wx^2</c>; the rest is
        /// its error.
        /// </summary>
        /// <param name="moments">Of codes and values beside the pivot's.</param>
        /// <param name="pivotCode">The pivot's code.</param>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Improve(in Totals<T> totals, in Moments<T> moments, T pivotCode, bool isFree)
        {
            if (!isFree)
            {
                ImproveBounded(in totals, moments, pivotCode);
                return;
            }

            T isLine = Fit(in totals, in moments, out T step, out T beside);
            Keep(isLine, (step * moments.CodeValue) - (beside * totals.Beside), step, beside + ((step * pivotCode) - totals.Pivot));
        }

        /// <summary>As <see cref="Improve"/> where the offset must not be negative: the best line with none is that of step alone.</summary>
        // Apart from the sums, and with a copy of them: inlined it takes the loop's share of what the compiler inlines, and by reference the sums would lie in memory.
        [MethodImpl(MethodImplOptions.NoInlining)]
        private void ImproveBounded(in Totals<T> totals, Moments<T> moments, T pivotCode)
        {
            T isLine = Fit(in totals, in moments, out T step, out T beside);
            T offset = beside + ((step * pivotCode) - totals.Pivot);
            T isNegative = T.Greater(T.Broadcast(0), offset);
            T codeValue = moments.CodeValue + (totals.Pivot * moments.Code) + (pivotCode * (totals.Beside + (totals.Pivot * totals.Weight)));
            T code2 = moments.Code2 + (pivotCode * (moments.Code + moments.Code + (pivotCode * totals.Weight)));
            step = T.Select(isNegative, codeValue / code2, step);
            beside = T.Select(isNegative, totals.Pivot - (step * pivotCode), beside);
            offset = T.Select(isNegative, T.Broadcast(0), offset);
            T fitted = (step * moments.CodeValue) - (beside * totals.Beside);
            T square = (step * ((step * moments.Code2) - (beside * (moments.Code + moments.Code)))) + (beside * beside * totals.Weight);
            Keep(isLine, fitted + fitted - square, step, offset);
        }

        /// <summary>The least-squares line beside the pivot, and whether there is one.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private static T Fit(in Totals<T> totals, in Moments<T> moments, out T step, out T beside)
        {
            T squares = totals.Weight * moments.Code2;
            // Of n values at least squares / n, since the pivot's weight is the greatest, unless all codes are equal and determine no line.
            T determinant = squares - (moments.Code * moments.Code);
            T inverse = T.Broadcast(1) / determinant;
            step = ((totals.Weight * moments.CodeValue) - (totals.Beside * moments.Code)) * inverse;
            beside = ((moments.Code * moments.CodeValue) - (moments.Code2 * totals.Beside)) * inverse;
            return T.Greater(determinant, squares * T.Broadcast(4e-6f));
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
        T high = low, pivot = low, greatest = Search.At<T>(in weights, 0);
        for (int i = 1; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
            pivot = T.Select(T.Greater(weight, greatest), value, pivot);
            greatest = T.Max(weight, greatest);
        }

        if (!isFree) low = T.Min(low, T.Broadcast(0));
        T sumW = T.Broadcast(0), beside = sumW;
        for (int i = 0; i < length; i++)
        {
            T weight = Search.At<T>(in weights, i);
            sumW += weight;
            beside = T.MultiplyAdd(weight, Search.At<T>(in values, i) - pivot, beside);
        }

        return new(low, high, pivot, sumW, beside);
    }

    /// <summary>
    /// A step and an offset, not yet rounded. Of roundings that lay the codes over more or less than the group's range, from its least value or from a little beside it,
    /// the one whose least-squares line leaves the least error; then, several times, the codes nearest to the line and the best line of those codes.
    /// </summary>
    /// <param name="isFree">True where an offset may be negative.</param>
    public static (T Step, T Offset) Start<T>(ref readonly float values, ref readonly float weights, int length, int limit, bool isFree, in Totals<T> totals, AffineStart start)
        where T : unmanaged, ILanes<T>
    {
        T range = totals.High - totals.Low, pivot = totals.Pivot;
        T inverseRange = LaneMath.FiniteInverse(range);
        T step = range * T.Broadcast(1f / limit);
        // Where only one value weighs anything no line is determined: one on which that value lies.
        Line<T> best = new(step, Through(in totals, step, inverseRange, limit, isFree));
        Rounder<T> rounder = new(limit);
        for (int phase = 0; phase < start.Phases; phase++)
        {
            T shift = (step * T.Broadcast((phase - ((start.Phases - 1) / 2)) * (1f / start.Phases))) - totals.Low;
            for (int n = 0; n < start.Tries; n += 2)
            {
                T inverse0 = T.Broadcast(start.CodesOverRange(n, limit)) * inverseRange, inverse1 = T.Broadcast(start.CodesOverRange(n + 1, limit)) * inverseRange;
                T pivot0 = rounder.Raw(pivot + shift, inverse0), pivot1 = rounder.Raw(pivot + shift, inverse1);
                SumPair(in values, in weights, length, rounder, pivot, shift, inverse0, inverse1, pivot0, pivot1, out Moments<T> moments0, out Moments<T> moments1);
                best.Improve(in totals, in moments0, rounder.ToCode(pivot0), isFree);
                best.Improve(in totals, in moments1, rounder.ToCode(pivot1), isFree);
            }
        }

        for (int n = 0; n < start.Sweeps; n++)
        {
            Moments<T> moments = Beside(in values, in weights, length, limit, in totals, best.Step, best.Offset, out T pivotCode);
            best.Improve(in totals, in moments, pivotCode, isFree);
        }

        return (best.Step, best.Offset);
    }

    /// <summary>The best offset for the codes that are nearest under a step and an offset.</summary>
    public static T Offset<T>(ref readonly float values, ref readonly float weights, int length, int limit, in Totals<T> totals, T step, T offset) where T : unmanaged, ILanes<T>
    {
        Moments<T> moments = Beside(in values, in weights, length, limit, in totals, step, offset, out T pivotCode);
        return (((step * moments.Code) - totals.Beside) * LaneMath.FiniteInverse(totals.Weight)) + ((step * pivotCode) - totals.Pivot);
    }

    /// <summary>Moments beside the pivot's of the codes under two steps: apart, so that the compiler keeps the sums in registers.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void SumPair<T>(
        ref readonly float values, ref readonly float weights, int length, Rounder<T> rounder, T pivot, T shift, T inverse0, T inverse1, T pivot0, T pivot1,
        out Moments<T> moments0, out Moments<T> moments1) where T : unmanaged, ILanes<T>
    {
        Moments<T> sums0 = default, sums1 = default;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            T beside = value - pivot;
            T shifted = value + shift;
            sums0.Add(rounder.Raw(shifted, inverse0) - pivot0, weight, beside);
            sums1.Add(rounder.Raw(shifted, inverse1) - pivot1, weight, beside);
        }

        (moments0, moments1) = (sums0, sums1);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static T Through<T>(in Totals<T> totals, T step, T inverseRange, int limit, bool isFree) where T : unmanaged, ILanes<T>
    {
        T offset = (step * new Rounder<T>(limit).Code(totals.Pivot - totals.Low, T.Broadcast(limit) * inverseRange)) - totals.Pivot;
        return isFree ? offset : T.Max(offset, T.Broadcast(0));
    }

    /// <summary>Moments of the codes nearest under a step and an offset and of values, both beside the pivot's.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Moments<T> Beside<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, in Totals<T> totals, T step, T offset, out T pivotCode) where T : unmanaged, ILanes<T>
    {
        Rounder<T> rounder = new(limit);
        T inverse = LaneMath.FiniteInverse(step);
        T pivot = rounder.Raw(totals.Pivot + offset, inverse);
        Moments<T> moments = default;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            moments.Add(rounder.Raw(value + offset, inverse) - pivot, Search.At<T>(in weights, i), value - totals.Pivot);
        }

        pivotCode = rounder.ToCode(pivot);
        return moments;
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
