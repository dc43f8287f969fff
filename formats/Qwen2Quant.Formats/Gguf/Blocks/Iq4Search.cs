using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Scales of groups of 32 values on the 16 levels of <see cref="NibbleTable.Iq4"/>: ggml's search, and one of the least importance x squared error.
/// Each lane is a group, transposed as in <see cref="Search"/>.
/// </summary>
internal static class Iq4Search
{
    public const int Length = 32;

    /// <summary>Codes, as floats, that the value of largest magnitude is tried on: beyond the ends of the table it is cut off, which serves the others.</summary>
    private static ReadOnlySpan<float> FastAnchors => [-127, -135, -119, 113, 121, 105];

    private static readonly float[] NormalAnchors = Anchors(0.02f);

    private static readonly float[] HighAnchors = Anchors(0.005f);

    /// <summary>Share of x^2 in the weights without importance. ggml's are x^2 alone, which keeps what large weights do to a model; this lowers both errors below ggml's.</summary>
    private const float SquareShare = 0.25f;

    /// <summary>Transposes a batch of groups and their weights: importance, or 1 + x^2 / 4 in units of the group's mean square.</summary>
    public static void Transpose<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Span<float> lanes, Span<float> weights) where T : unmanaged, ILanes<T>
    {
        Search.Transpose(values, Length, lanes);
        if (!importance.IsEmpty)
        {
            Search.Transpose(importance, Length, weights);
            return;
        }

        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            T sum = T.Broadcast(0);
            for (int i = 0; i < Length; i++) sum = T.MultiplyAdd(Search.At<T>(in lanes[g], i), Search.At<T>(in lanes[g], i), sum);
            T factor = T.Broadcast(SquareShare * Length) * LaneMath.FiniteInverse(sum);
            for (int i = 0; i < Length; i++)
            {
                T value = Search.At<T>(in lanes[g], i);
                T.Store(T.MultiplyAdd(factor * value, value, T.Broadcast(1)), ref weights[(i * Search.Stride) + g]);
            }
        }
    }

    /// <summary>ggml's weights: x^2, or <c>w * sqrt(variance + x^2)</c> with twice the mean square of the lane's block.</summary>
    public static void ReferenceWeights<T>(ReadOnlySpan<float> lanes, ReadOnlySpan<float> variances, bool hasImportance, Span<float> weights) where T : unmanaged, ILanes<T>
    {
        for (int i = 0; i < lanes.Length; i += T.Width)
        {
            T value = Block32.At<T>(in lanes[0], i);
            T square = value * value;
            T weight = hasImportance ? Block32.At<T>(in weights[0], i) * T.Sqrt(Block32.At<T>(in variances[0], i % Search.Stride) + square) : square;
            T.Store(weight, ref weights[i]);
        }
    }

    /// <summary>ggml's search: the largest value on the table's low end, then on 15 codes around it; every scale is refitted to the codes that it gives.</summary>
    public static void Reference<T>(ref readonly float values, ref readonly float weights, ref float scales) where T : unmanaged, ILanes<T>
    {
        (T extreme, T dead) = Extreme<T>(in values);
        T inverse = T.Broadcast(1) / (LaneMath.Negate(extreme) / T.Broadcast(NibbleTable.Iq4[0]));
        ReferenceSums<T>(in values, in weights, inverse, out T sumQx, out T sumQ2);
        T scale = T.Select(T.Greater(sumQ2, T.Broadcast(0)), sumQx / sumQ2, T.Broadcast(0));
        T best = scale * sumQx;
        for (int step = -7; step <= 7; step++)
        {
            ReferenceSums<T>(in values, in weights, T.Broadcast(step + NibbleTable.Iq4[0]) / extreme, out sumQx, out sumQ2);
            T better = T.Greater(sumQ2, T.Broadcast(0)) & T.Greater(sumQx * sumQx, best * sumQ2);
            scale = T.Select(better, sumQx / sumQ2, scale);
            best = T.Select(better, scale * sumQx, best);
        }

        T.Store(T.Select(dead, T.Broadcast(0), scale), ref scales);
    }

    /// <summary>The scales of least weighted error that the effort finds.</summary>
    /// <param name="scales">0 for a group of zeros.</param>
    /// <param name="curvatures">Sum of weight x level^2: what an error d of the scale costs is this times d^2.</param>
    public static void Scales<T>(ref readonly float values, ref readonly float weights, Effort effort, ref float scales, ref float curvatures) where T : unmanaged, ILanes<T>
    {
        (T extreme, T dead) = Extreme<T>(in values);
        T unit = T.Broadcast(1) / extreme;
        T scale = extreme * T.Broadcast(1 / NibbleTable.Iq4[0]);
        T best = T.Broadcast(0);
        T curvature = best;
        foreach (float anchor in effort == Effort.Fast ? FastAnchors : effort == Effort.Normal ? NormalAnchors : HighAnchors)
        {
            Try<T>(in values, in weights, T.Broadcast(anchor) * unit, ref scale, ref best, ref curvature);
        }

        for (int round = effort == Effort.Fast ? 1 : 3; round > 0; round--)
        {
            Try<T>(in values, in weights, T.Broadcast(1) / scale, ref scale, ref best, ref curvature);
        }

        T.Store(T.Select(dead, T.Broadcast(0), scale), ref scales);
        T.Store(T.Select(dead, T.Broadcast(0), curvature), ref curvatures);
    }

    /// <summary>How much less than the sum of weight x value^2 the weighted error is under a step, with the nearest codes; and their sums.</summary>
    public static void Gains<T>(ref readonly float values, ref readonly float weights, ref readonly float steps, ref float gains, ref float sumsQx, ref float sumsQ2)
        where T : unmanaged, ILanes<T>
    {
        T.Store(Gain<T>(in values, in weights, T.Load(in steps), out T sumQx, out T sumQ2), ref gains);
        T.Store(sumQx, ref sumsQx);
        T.Store(sumQ2, ref sumsQ2);
    }

    /// <summary>Moves stored scales by at most <paramref name="reach"/> units of their last place to where the weighted error is least.</summary>
    public static void Neighbours<T>(ref readonly float values, ref readonly float weights, int reach, ref float scales) where T : unmanaged, ILanes<T>
    {
        T scale = T.Load(ref scales);
        T bits = HalfRows.ToHalfBits(scale);
        T best = Gain<T>(in values, in weights, scale, out _, out _);
        for (int offset = -reach; offset <= reach; offset++)
        {
            if (offset == 0) continue;
            T trial = HalfRows.FromHalfBits(T.AddInt(bits, T.BroadcastInt(offset)));
            T gain = Gain<T>(in values, in weights, trial, out _, out _);
            T better = T.Greater(gain, best);
            scale = T.Select(better, trial, scale);
            best = T.Select(better, gain, best);
        }

        T.Store(scale, ref scales);
    }

    /// <summary>Enlarges scales by what they lose in <see cref="Blocks.Gain"/>, and rounds them to halves.</summary>
    public static void RestoreGains<T>(ref readonly float values, ref readonly float weights, ref float scales) where T : unmanaged, ILanes<T>
    {
        T scale = T.Load(ref scales);
        Sums<T>(in values, in weights, LaneMath.FiniteInverse(scale), out T sumQx, out _);
        T fitted = scale * sumQx;
        T squares = AffineSearch.Squares<T>(in values, in weights, Length);
        T.Store(StoredHalf.Round(scale * Blocks.Gain.Factor(squares, fitted)), ref scales);
    }

    /// <summary>Stores the nibbles of 32 values in order.</summary>
    public static void StoreNibbles<T>(ref readonly float values, float inverse, ref byte nibbles) where T : unmanaged, ILanes<T>
    {
        T factor = T.Broadcast(inverse);
        for (int j = 0; j < 16; j += T.Width)
        {
            T low = NibbleTable.NearestIq4(Block32.At<T>(in values, j) * factor);
            T high = NibbleTable.NearestIq4(Block32.At<T>(in values, j + 16) * factor);
            T.StoreBytes(low | T.ShiftLeft(high, 4), ref Unsafe.Add(ref nibbles, j));
        }
    }

    /// <summary>The value of largest magnitude, the first of several, and where that is as good as zero.</summary>
    private static (T Extreme, T Dead) Extreme<T>(ref readonly float values) where T : unmanaged, ILanes<T>
    {
        T peak = T.Broadcast(0), extreme = peak;
        for (int i = 0; i < Length; i++)
        {
            T value = Search.At<T>(in values, i);
            T magnitude = LaneMath.Abs(value);
            T larger = T.Greater(magnitude, peak);
            peak = T.Select(larger, magnitude, peak);
            extreme = T.Select(larger, value, extreme);
        }

        return (extreme, T.Greater(T.Broadcast(Search.Epsilon), peak));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Gain<T>(ref readonly float values, ref readonly float weights, T step, out T sumQx, out T sumQ2) where T : unmanaged, ILanes<T>
    {
        Sums(in values, in weights, LaneMath.FiniteInverse(step), out sumQx, out sumQ2);
        return (step * (sumQx + sumQx)) - (step * step * sumQ2);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Try<T>(ref readonly float values, ref readonly float weights, T inverse, ref T scale, ref T best, ref T curvature) where T : unmanaged, ILanes<T>
    {
        Sums<T>(in values, in weights, inverse, out T sumQx, out T sumQ2);
        T trial = sumQx / sumQ2;
        T gain = trial * sumQx;
        T better = T.Greater(gain, best);
        scale = T.Select(better, trial, scale);
        best = T.Select(better, gain, best);
        curvature = T.Select(better, sumQ2, curvature);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Sums<T>(ref readonly float values, ref readonly float weights, T inverse, out T sumQx, out T sumQ2) where T : unmanaged, ILanes<T>
    {
        sumQx = sumQ2 = T.Broadcast(0);
        for (int i = 0; i < Length; i++)
        {
            T value = Search.At<T>(in values, i);
            T level = T.Lookup16(in NibbleTable.Iq4[0], NibbleTable.NearestIq4(value * inverse));
            T weighted = Search.At<T>(in weights, i) * level;
            sumQx = T.MultiplyAdd(weighted, value, sumQx);
            sumQ2 = T.MultiplyAdd(weighted, level, sumQ2);
        }
    }

    // Sums as ggml rounds them: no product is fused.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ReferenceSums<T>(ref readonly float values, ref readonly float weights, T inverse, out T sumQx, out T sumQ2) where T : unmanaged, ILanes<T>
    {
        sumQx = sumQ2 = T.Broadcast(0);
        for (int i = 0; i < Length; i++)
        {
            T value = Search.At<T>(in values, i);
            T level = T.Lookup16(in NibbleTable.Iq4[0], NibbleTable.NearestIq4(value * inverse));
            T weighted = Search.At<T>(in weights, i) * level;
            sumQx += weighted * value;
            sumQ2 += weighted * level;
        }
    }

    /// <summary>Close together around the ends of the table and three times as wide apart to four times as far, where the largest value is given up for the others.</summary>
    private static float[] Anchors(float step)
    {
        List<float> anchors = [];
        foreach (float end in new[] { NibbleTable.Iq4[0], NibbleTable.Iq4[15] })
        {
            for (float ratio = 0.8f; ratio < 4; ratio *= ratio < 1.35f ? 1 + step : 1 + (3 * step)) anchors.Add(ratio * end);
        }

        return [.. anchors];
    }
}
