using System.Runtime.CompilerServices;
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

    /// <summary>Turns groups of <paramref name="groupLength"/> values, back to back, into lanes; missing groups become zeros.</summary>
    public static void Transpose(ReadOnlySpan<float> groups, int groupLength, Span<float> lanes)
    {
        int count = groups.Length / groupLength;
        if (count < Stride) lanes.Clear();
        for (int g = 0; g < count; g++)
        {
            ReadOnlySpan<float> group = groups.Slice(g * groupLength, groupLength);
            for (int i = 0; i < group.Length; i++) lanes[(i * Stride) + g] = group[i];
        }
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
        T peak = T.Broadcast(0), extreme = peak;
        for (int i = 0; i < length; i++)
        {
            T value = At<T>(in values, i);
            T magnitude = LaneMath.Abs(value);
            T larger = T.Greater(magnitude, peak);
            peak = T.Select(larger, magnitude, peak);
            extreme = T.Select(larger, value, extreme);
        }

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
