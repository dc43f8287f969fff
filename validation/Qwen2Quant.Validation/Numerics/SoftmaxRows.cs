using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>
/// Sums over one row of logits. Value i goes to lane i mod 16, lanes are added in order at the end: the result has the same
/// bits at every vector width.
/// </summary>
internal static unsafe class SoftmaxRows
{
    private const int LaneCount = 16;

    /// <summary>The largest logit; NaN when one of the row is not finite.</summary>
    public static float Maximum(ReadOnlySpan<float> logits) => Maximum(logits, Simd.Level);

    internal static float Maximum(ReadOnlySpan<float> logits, SimdLevel level)
    {
        fixed (float* source = logits)
        {
            return level switch
            {
                >= SimdLevel.Avx512 => Maximum<Lanes512, Vector512<double>>(source, logits.Length),
                >= SimdLevel.Avx2 => Maximum<Lanes256, Lanes256.Sums>(source, logits.Length),
                >= SimdLevel.Vector128 => Maximum<Lanes128, Lanes128.Sums>(source, logits.Length),
                _ => MaximumTail(source, 0, logits.Length, float.NegativeInfinity, 0),
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
                >= SimdLevel.Avx512 => Sum<Lanes512, Vector512<double>>(source, logits.Length, maximum),
                >= SimdLevel.Avx2 => Sum<Lanes256, Lanes256.Sums>(source, logits.Length, maximum),
                >= SimdLevel.Vector128 => Sum<Lanes128, Lanes128.Sums>(source, logits.Length, maximum),
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

    private static float Maximum<TLanes, TSums>(float* source, int count)
        where TLanes : struct, ILanes<TLanes, TSums>
        where TSums : struct
    {
        // A finite value times zero is zero; infinity or NaN times zero is NaN, which stays in the sum.
        TLanes none = TLanes.Broadcast(0);
        TLanes check = none;
        TLanes largest = TLanes.Broadcast(float.NegativeInfinity);
        int index = 0;
        for (; index <= count - LaneCount; index += LaneCount)
        {
            TLanes value = TLanes.Load(source + index);
            largest = TLanes.Max(largest, value);
            check = TLanes.MultiplyAdd(value, none, check);
        }

        float* lanes = stackalloc float[LaneCount];
        TLanes.Store(check, lanes);
        float checkSum = 0;
        for (int lane = 0; lane < LaneCount; lane++) checkSum += lanes[lane];
        TLanes.Store(largest, lanes);
        float maximum = float.NegativeInfinity;
        for (int lane = 0; lane < LaneCount; lane++) maximum = lanes[lane] > maximum ? lanes[lane] : maximum;
        return MaximumTail(source, index, count, maximum, checkSum);
    }

    private static float MaximumTail(float* source, int index, int count, float maximum, float checkSum)
    {
        for (; index < count; index++)
        {
            maximum = source[index] > maximum ? source[index] : maximum;
            checkSum += source[index] * 0;
        }

        return checkSum == 0 ? maximum : float.NaN;
    }

    private static double Sum<TLanes, TSums>(float* source, int count, float maximum)
        where TLanes : struct, ILanes<TLanes, TSums>
        where TSums : struct
    {
        TLanes shift = TLanes.Broadcast(maximum);
        TSums low = default, high = default;
        int index = 0;
        for (; index <= count - LaneCount; index += LaneCount)
        {
            TLanes exponential = Exponential.Evaluate<TLanes, TSums>(TLanes.Subtract(TLanes.Load(source + index), shift));
            low = TLanes.AddLow(low, exponential);
            high = TLanes.AddHigh(high, exponential);
        }

        double* lanes = stackalloc double[LaneCount];
        TLanes.Store(low, lanes);
        TLanes.Store(high, lanes + (LaneCount / 2));
        return SumTail(source, index, count, maximum, lanes);
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
