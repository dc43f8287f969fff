using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// ggml's searches for the scale of a group under weights. Each lane is a group of its own, so that every sum runs over the
/// group's values in index order, as ggml's does, at every vector width. Value i of lane g lies at <c>i * 16 + g</c>.
/// </summary>
internal static class Search
{
    /// <summary>Groups side by side in a transposed batch.</summary>
    public const int Stride = 16;

    /// <summary>Magnitude below which ggml takes a group as zero (<c>GROUP_MAX_EPS</c>).</summary>
    public const float Epsilon = 1e-15f;

    /// <summary>Turns groups of <paramref name="groupLength"/> values, back to back, into lanes; missing groups become zeros. The length is a multiple of four.</summary>
    public static void Transpose(ReadOnlySpan<float> groups, int groupLength, Span<float> lanes)
    {
        int count = groups.Length / groupLength;
        if (Avx512F.IsSupported && count == Stride)
        {
            for (int i = 0; i < groupLength; i += 4) TransposeColumns(in groups[i], groupLength, ref lanes[i * Stride]);
            return;
        }

        if (count < Stride) lanes.Clear();
        int tiled = Sse.IsSupported ? count & ~3 : 0;
        for (int g = 0; g < tiled; g += 4)
        {
            for (int i = 0; i < groupLength; i += 4) TransposeTile(in groups[(g * groupLength) + i], groupLength, ref lanes[(i * Stride) + g]);
        }

        for (int g = tiled; g < count; g++)
        {
            ReadOnlySpan<float> group = groups.Slice(g * groupLength, groupLength);
            for (int i = 0; i < group.Length; i++) lanes[(i * Stride) + g] = group[i];
        }
    }

    /// <summary>Four values of each of 16 groups.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void TransposeColumns(ref readonly float groups, int groupLength, ref float lanes)
    {
        Vector512<float> row0 = EveryFourth(in groups, groupLength, 0), row1 = EveryFourth(in groups, groupLength, 1);
        Vector512<float> row2 = EveryFourth(in groups, groupLength, 2), row3 = EveryFourth(in groups, groupLength, 3);
        Vector512<double> low01 = Avx512F.UnpackLow(row0, row1).AsDouble(), high01 = Avx512F.UnpackHigh(row0, row1).AsDouble();
        Vector512<double> low23 = Avx512F.UnpackLow(row2, row3).AsDouble(), high23 = Avx512F.UnpackHigh(row2, row3).AsDouble();
        Avx512F.UnpackLow(low01, low23).AsSingle().StoreUnsafe(ref lanes);
        Avx512F.UnpackHigh(low01, low23).AsSingle().StoreUnsafe(ref lanes, Stride);
        Avx512F.UnpackLow(high01, high23).AsSingle().StoreUnsafe(ref lanes, 2 * Stride);
        Avx512F.UnpackHigh(high01, high23).AsSingle().StoreUnsafe(ref lanes, 3 * Stride);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> EveryFourth(ref readonly float groups, int groupLength, int first)
    {
        Vector512<float> four = Vector128.LoadUnsafe(in groups, (nuint)(first * groupLength)).ToVector256Unsafe().ToVector512Unsafe();
        four = Avx512F.InsertVector128(four, Vector128.LoadUnsafe(in groups, (nuint)((first + 4) * groupLength)), 1);
        four = Avx512F.InsertVector128(four, Vector128.LoadUnsafe(in groups, (nuint)((first + 8) * groupLength)), 2);
        return Avx512F.InsertVector128(four, Vector128.LoadUnsafe(in groups, (nuint)((first + 12) * groupLength)), 3);
    }

    /// <summary>Four values of each of four groups.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void TransposeTile(ref readonly float groups, int groupLength, ref float lanes)
    {
        Vector128<float> row0 = Vector128.LoadUnsafe(in groups);
        Vector128<float> row1 = Vector128.LoadUnsafe(in groups, (nuint)groupLength);
        Vector128<float> row2 = Vector128.LoadUnsafe(in groups, 2 * (nuint)groupLength);
        Vector128<float> row3 = Vector128.LoadUnsafe(in groups, 3 * (nuint)groupLength);
        Vector128<float> low01 = Sse.UnpackLow(row0, row1), high01 = Sse.UnpackHigh(row0, row1);
        Vector128<float> low23 = Sse.UnpackLow(row2, row3), high23 = Sse.UnpackHigh(row2, row3);
        Sse.MoveLowToHigh(low01, low23).StoreUnsafe(ref lanes);
        Sse.MoveHighToLow(low23, low01).StoreUnsafe(ref lanes, Stride);
        Sse.MoveLowToHigh(high01, high23).StoreUnsafe(ref lanes, 2 * Stride);
        Sse.MoveHighToLow(high23, high01).StoreUnsafe(ref lanes, 3 * Stride);
    }

    /// <summary>
    /// ggml's <c>make_qx_quants</c>: codes of -<paramref name="limit"/> to <paramref name="limit"/> - 1 times a scale of either sign; of 19 roundings the one
    /// whose best scale leaves the least weighted error.
    /// </summary>
    /// <param name="scales">The best scale of each lane, 0 for a group of zeros.</param>
    /// <param name="inverses">The inverse scale that gave the codes, 0 for a group of zeros, whose codes are all -limit.</param>
    public static void Symmetric<T>(ref readonly float values, ref readonly float weights, int length, int limit, ref float scales, ref float inverses)
        where T : unmanaged, ILanes<T>
    {
        T extreme = Extreme<T>(in values, length, out T peak);
        T zero = T.Broadcast(0);
        (T low, T high) = (T.Broadcast(-limit), T.Broadcast(limit - 1));
        T dead = T.Greater(T.Broadcast(Epsilon), peak);
        T bestInverse = T.Broadcast(-limit) / extreme;
        T sumXl = zero, sumL2 = zero;
        for (int i = 0; i < length; i++)
        {
            T value = At<T>(in values, i);
            T weight = At<T>(in weights, i);
            T code = SymmetricCode(value, bestInverse, low, high);
            sumXl += weight * value * code;
            sumL2 += weight * code * code;
        }

        T bestScale = T.Select(T.Greater(sumL2, zero), sumXl / sumL2, zero);
        T best = bestScale * sumXl;
        // Three tries at a time: their sums do not depend on one another, and each addition waits for the one before.
        for (int first = -9; first <= 7; first += first == -3 ? 4 : 3)
        {
            T inverse0 = TryInverse(extreme, limit, first);
            T inverse1 = TryInverse(extreme, limit, first + 1);
            T inverse2 = TryInverse(extreme, limit, first + 2);
            T sumXl0 = zero, sumXl1 = zero, sumXl2 = zero, sumL20 = zero, sumL21 = zero, sumL22 = zero;
            for (int i = 0; i < length; i++)
            {
                T value = At<T>(in values, i);
                T weight = At<T>(in weights, i);
                T weighted = weight * value;
                T code0 = SymmetricCode(value, inverse0, low, high);
                T code1 = SymmetricCode(value, inverse1, low, high);
                T code2 = SymmetricCode(value, inverse2, low, high);
                sumXl0 += weighted * code0;
                sumXl1 += weighted * code1;
                sumXl2 += weighted * code2;
                sumL20 += weight * code0 * code0;
                sumL21 += weight * code1 * code1;
                sumL22 += weight * code2 * code2;
            }

            KeepBetter(sumXl0, sumL20, inverse0, ref best, ref bestScale, ref bestInverse);
            KeepBetter(sumXl1, sumL21, inverse1, ref best, ref bestScale, ref bestInverse);
            KeepBetter(sumXl2, sumL22, inverse2, ref best, ref bestScale, ref bestInverse);
        }

        T.Store(T.Select(dead, zero, bestScale), ref scales);
        T.Store(T.Select(dead, zero, bestInverse), ref inverses);
    }

    /// <summary>Codes 0 to 2 x <paramref name="limit"/> - 1, as integer lanes, of <see cref="Symmetric"/>'s choice.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T SymmetricCodes<T>(T values, T inverse, int limit) where T : unmanaged, ILanes<T>
    {
        T code = SymmetricCode(values, inverse, T.Broadcast(-limit), T.Broadcast(limit - 1)) + T.Broadcast(limit);
        return T.ToInt(T.Select(T.Equal(inverse, T.Broadcast(0)), T.Broadcast(0), code));
    }

    /// <summary>
    /// ggml's <c>make_q3_quants</c>: codes of -<paramref name="limit"/> to <paramref name="limit"/> - 1 times a scale, weights x^2; from the extreme on
    /// -<paramref name="limit"/>, up to five sweeps move one code at a time to where the others' best scale puts its value, if that lowers the weighted error.
    /// </summary>
    /// <param name="codes">Codes 0 to 2 x <paramref name="limit"/> - 1 as floats, value i of lane g at <c>i * 16 + g</c>; all 0 for a group of zeros.</param>
    /// <param name="scales">The best scale of each lane, 0 for a group of zeros.</param>
    public static void Descend<T>(ref readonly float values, int length, int limit, ref float codes, ref float scales) where T : unmanaged, ILanes<T>
    {
        T extreme = Extreme<T>(in values, length, out T peak);
        T zero = T.Broadcast(0);
        (T low, T high) = (T.Broadcast(-limit), T.Broadcast(limit - 1));
        T inverse = T.Broadcast(-limit) / extreme;
        T sumXl = zero, sumL2 = zero;
        for (int i = 0; i < length; i++)
        {
            T value = At<T>(in values, i);
            T code = SymmetricCode(value, inverse, low, high);
            T.Store(code, ref Unsafe.Add(ref codes, i * Stride));
            sumXl += value * value * value * code;
            sumL2 += value * value * code * code;
        }

        uint changed = 1;
        for (int sweep = 0; sweep < 5 && changed != 0; sweep++)
        {
            changed = 0;
            for (int i = 0; i < length; i++)
            {
                T value = At<T>(in values, i);
                T code = At<T>(ref codes, i);
                T weight = value * value;
                T otherXl = sumXl - (weight * value * code);
                T otherL2 = sumL2 - (weight * code * code);
                T moved = LaneMath.RoundToEven(T.Max(T.Min(value * otherL2 / otherXl, high), low));
                T movedXl = otherXl + (weight * value * moved);
                T movedL2 = otherL2 + (weight * moved * moved);
                T better = T.Greater(LaneMath.Abs(moved - code), zero) & T.Greater(otherXl, zero) & T.Greater(movedL2, zero) & T.Greater(movedXl * movedXl * sumL2, sumXl * sumXl * movedL2);
                sumXl = T.Select(better, movedXl, sumXl);
                sumL2 = T.Select(better, movedL2, sumL2);
                T.Store(T.Select(better, moved, code), ref Unsafe.Add(ref codes, i * Stride));
                changed |= T.TopBits(better);
            }
        }

        T dead = T.Greater(T.Broadcast(Epsilon), peak);
        for (int i = 0; i < length; i++) T.Store(T.Select(dead, zero, At<T>(ref codes, i) + T.Broadcast(limit)), ref Unsafe.Add(ref codes, i * Stride));
        T.Store(T.Select(dead, zero, sumXl / sumL2), ref scales);
    }

    /// <summary>The first value of the largest magnitude of each lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Extreme<T>(ref readonly float values, int length, out T peak) where T : unmanaged, ILanes<T>
    {
        peak = T.Broadcast(0);
        T extreme = peak;
        for (int i = 0; i < length; i++)
        {
            T value = At<T>(in values, i);
            T magnitude = LaneMath.Abs(value);
            T larger = T.Greater(magnitude, peak);
            peak = T.Select(larger, magnitude, peak);
            extreme = T.Select(larger, value, extreme);
        }

        return extreme;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T TryInverse<T>(T extreme, int limit, int step) where T : unmanaged, ILanes<T> => T.Broadcast(-(limit + (0.1f * step))) / extreme;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T SymmetricCode<T>(T values, T inverse, T low, T high) where T : unmanaged, ILanes<T> =>
        LaneMath.RoundToEven(T.Max(T.Min(inverse * values, high), low));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void KeepBetter<T>(T sumXl, T sumL2, T inverse, ref T best, ref T bestScale, ref T bestInverse) where T : unmanaged, ILanes<T>
    {
        T better = T.Greater(sumL2, T.Broadcast(0)) & T.Greater(sumXl * sumXl, best * sumL2);
        bestScale = T.Select(better, sumXl / sumL2, bestScale);
        bestInverse = T.Select(better, inverse, bestInverse);
        best = T.Select(better, bestScale * sumXl, best);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T At<T>(ref readonly float values, int index) where T : unmanaged, ILanes<T> => T.Load(ref Unsafe.Add(ref Unsafe.AsRef(in values), index * Stride));
}
