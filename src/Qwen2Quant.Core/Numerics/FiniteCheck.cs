using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Finds NaN and infinities before they reach an encoder, at the cost of one pass over cached values.</summary>
public static class FiniteCheck
{
    private const int InfinityBits = 0x7f800000;

    /// <summary>The greatest magnitude among the values; infinity when one of them is not finite. 0 for no values.</summary>
    public static float LargestMagnitude(ReadOnlySpan<float> values) => LargestMagnitude(Simd.Level, values);

    /// <summary>Index of the first value that is NaN or infinite, or -1.</summary>
    public static int FindNonFinite(ReadOnlySpan<float> values)
    {
        if (float.IsFinite(LargestMagnitude(values))) return -1;
        int index = 0;
        while (float.IsFinite(values[index])) index++;
        return index;
    }

    internal static float LargestMagnitude(SimdLevel level, ReadOnlySpan<float> values) =>
        level >= SimdLevel.Avx512 ? LargestMagnitude<Lanes512>(values)
        : level >= SimdLevel.Avx2 ? LargestMagnitude<Lanes256>(values)
        : level >= SimdLevel.Vector128 ? LargestMagnitude<Lanes128>(values)
        : LargestMagnitude<Lanes1>(values);

    // With the sign cleared, bits at or above infinity's are infinities and NaN; maxima alone would lose a NaN.
    private static float LargestMagnitude<T>(ReadOnlySpan<float> values) where T : unmanaged, ILanes<T>
    {
        ref float from = ref MemoryMarshal.GetReference(values);
        T belowInfinity = T.BroadcastInt(InfinityBits - 1);
        T peak0 = T.Broadcast(0), peak1 = peak0, special = peak0;
        int i = 0;
        for (; i <= values.Length - (2 * T.Width); i += 2 * T.Width)
        {
            T a = LaneMath.Abs(T.Load(ref Unsafe.Add(ref from, i)));
            T b = LaneMath.Abs(T.Load(ref Unsafe.Add(ref from, i + T.Width)));
            special |= T.GreaterInt(a, belowInfinity) | T.GreaterInt(b, belowInfinity);
            peak0 = T.Max(a, peak0);
            peak1 = T.Max(b, peak1);
        }

        bool finite = T.TopBits(special) == 0;
        float peak = T.MaxAcross(T.Max(peak0, peak1));
        for (; i < values.Length; i++)
        {
            float magnitude = MathF.Abs(Unsafe.Add(ref from, i));
            finite &= float.IsFinite(magnitude);
            if (magnitude > peak) peak = magnitude;
        }

        return finite ? peak : float.PositiveInfinity;
    }
}
