using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>
/// Sums over one row of logits. Value i goes to lane i mod 16, lanes are added in order at the end: the result has the same
/// bits at every vector width.
/// </summary>
internal static unsafe class SoftmaxRows
{
    internal const int LaneCount = 16;

    /// <summary>Values within a core's first-level cache: a register narrower than all lanes passes over them once for each of its columns.</summary>
    internal const int ChunkLength = 4096;

    /// <summary>The largest logit; NaN when one of the row is not finite.</summary>
    public static float Maximum(ReadOnlySpan<float> logits) => Maximum(logits, Simd.Level);

    internal static float Maximum(ReadOnlySpan<float> logits, SimdLevel level)
    {
        fixed (float* source = logits)
        {
            return level switch
            {
                >= SimdLevel.Avx512 => Maximum<Lanes512>(source, logits.Length),
                >= SimdLevel.Avx2 => Maximum<Lanes256>(source, logits.Length),
                >= SimdLevel.Vector128 => Maximum<Lanes128>(source, logits.Length),
                _ => Maximum<Lanes1>(source, logits.Length),
            };
        }
    }

    /// <summary>The sum of <c>exp(logit - maximum)</c>, subtraction and exponential in single precision, the sum in double.</summary>
    public static double SumOfExponentials(ReadOnlySpan<float> logits, float maximum) => SumOfExponentials(logits, maximum, Simd.Level);

    internal static double SumOfExponentials(ReadOnlySpan<float> logits, float maximum, SimdLevel level)
    {
        fixed (float* source = logits)
        {
            return level switch
            {
                >= SimdLevel.Avx512 => Sum<Lanes512, WideLanes512>(source, logits.Length, maximum),
                >= SimdLevel.Avx2 => Sum<Lanes256, WideLanes256>(source, logits.Length, maximum),
                >= SimdLevel.Vector128 => Sum<Lanes128, WideLanes128>(source, logits.Length, maximum),
                _ => SumScalar(source, logits.Length, maximum),
            };
        }
    }

    /// <summary>Index of the first logit that equals <paramref name="maximum"/>, which must occur.</summary>
    public static int IndexOf(ReadOnlySpan<float> logits, float maximum)
    {
        if (maximum != 0) return MemoryMarshal.Cast<float, int>(logits).IndexOf(BitConverter.SingleToInt32Bits(maximum));
        for (int index = 0; index < logits.Length; index++)
        {
            if (logits[index] == 0) return index;
        }

        return -1;
    }

    private static float Maximum<T>(float* source, int count) where T : unmanaged, ILanes<T>
    {
        // A finite value times zero is zero; infinity or NaN times zero is NaN, which stays in the sum.
        T none = T.Broadcast(0);
        T checkA = none, checkB = none, checkC = none, checkD = none;
        T largest = T.Broadcast(float.NegativeInfinity);
        int index = 0;
        for (; index <= count - (4 * T.Width); index += 4 * T.Width)
        {
            T a = T.Load(in source[index]), b = T.Load(in source[index + T.Width]);
            T c = T.Load(in source[index + (2 * T.Width)]), d = T.Load(in source[index + (3 * T.Width)]);
            largest = T.Max(largest, T.Max(T.Max(a, b), T.Max(c, d)));
            checkA = T.MultiplyAdd(a, none, checkA);
            checkB = T.MultiplyAdd(b, none, checkB);
            checkC = T.MultiplyAdd(c, none, checkC);
            checkD = T.MultiplyAdd(d, none, checkD);
        }

        float checkSum = T.SumAcross((checkA + checkB) + (checkC + checkD));
        float maximum = T.MaxAcross(largest);
        for (; index < count; index++)
        {
            maximum = source[index] > maximum ? source[index] : maximum;
            checkSum += source[index] * 0;
        }

        return checkSum == 0 ? maximum : float.NaN;
    }

    private static double Sum<TLanes, TSums>(float* source, int count, float maximum)
        where TLanes : unmanaged, ILanes<TLanes>
        where TSums : unmanaged, IWideLanes<TSums, TLanes>
    {
        TLanes shift = TLanes.Broadcast(maximum);
        double* lanes = stackalloc double[LaneCount];
        new Span<double>(lanes, LaneCount).Clear();
        int whole = count - (count % LaneCount);
        int chunk = TLanes.Width == LaneCount ? whole : ChunkLength;
        for (int first = 0; first < whole; first += chunk)
        {
            int end = Math.Min(first + chunk, whole);
            for (int lane = 0; lane < LaneCount; lane += TLanes.Width)
            {
                TSums sums = TSums.Load(in lanes[lane]);
                for (int index = first + lane; index < end; index += LaneCount)
                {
                    sums += TSums.Widen(Exponential.Evaluate(TLanes.Load(in source[index]) - shift));
                }

                TSums.Store(sums, ref lanes[lane]);
            }
        }

        return SumTail(source, whole, count, maximum, lanes);
    }

    private static double SumScalar(float* source, int count, float maximum)
    {
        double* lanes = stackalloc double[LaneCount];
        new Span<double>(lanes, LaneCount).Clear();
        return SumTail(source, 0, count, maximum, lanes);
    }

    private static double SumTail(float* source, int index, int count, float maximum, double* lanes)
    {
        for (; index < count; index++) lanes[index % LaneCount] += Exponential.Evaluate(source[index] - maximum);
        return Total(lanes);
    }

    internal static double Total(double* lanes)
    {
        double total = 0;
        for (int lane = 0; lane < LaneCount; lane++) total += lanes[lane];
        return total;
    }
}
