using System.Runtime.CompilerServices;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>
/// e^x for x at or below 0, within 2e-7 relative: x = n ln 2 + r with |r| at most ln 2 / 2, e^r by its Taylor series to the
/// seventh power (remainder below 6e-9), and n added to the exponent. Below <see cref="Smallest"/> the result stays at e^-87 (1.6e-38).
/// </summary>
internal static class Exponential
{
    /// <summary>Keeps n at or above -126, so that the result is a normal number.</summary>
    public const float Smallest = -87f;

    /// <summary>1.5 x 2^23: adding it rounds to an integer, which then stands in the low bits.</summary>
    private const float RoundingBias = 12582912f;

    private const float Log2E = 1.44269504f;

    // ln 2 in two parts; the first has few enough bits that n times it is exact.
    private const float Ln2High = 0.693359375f;
    private const float Ln2Low = -2.12194440e-4f;

    private const float C7 = 1f / 5040, C6 = 1f / 720, C5 = 1f / 120, C4 = 1f / 24, C3 = 1f / 6, C2 = 0.5f;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TLanes Evaluate<TLanes, TSums>(TLanes x)
        where TLanes : struct, ILanes<TLanes, TSums>
        where TSums : struct
    {
        x = TLanes.Max(x, TLanes.Broadcast(Smallest));
        TLanes steps = TLanes.MultiplyAdd(x, TLanes.Broadcast(Log2E), TLanes.Broadcast(RoundingBias));
        TLanes n = TLanes.Subtract(steps, TLanes.Broadcast(RoundingBias));
        TLanes r = TLanes.MultiplyAdd(n, TLanes.Broadcast(-Ln2High), x);
        r = TLanes.MultiplyAdd(n, TLanes.Broadcast(-Ln2Low), r);
        TLanes sum = TLanes.MultiplyAdd(r, TLanes.Broadcast(C7), TLanes.Broadcast(C6));
        sum = TLanes.MultiplyAdd(r, sum, TLanes.Broadcast(C5));
        sum = TLanes.MultiplyAdd(r, sum, TLanes.Broadcast(C4));
        sum = TLanes.MultiplyAdd(r, sum, TLanes.Broadcast(C3));
        sum = TLanes.MultiplyAdd(r, sum, TLanes.Broadcast(C2));
        sum = TLanes.MultiplyAdd(r, sum, TLanes.Broadcast(1f));
        sum = TLanes.MultiplyAdd(r, sum, TLanes.Broadcast(1f));
        return TLanes.AddToExponent(sum, steps);
    }

    public static float Evaluate(float x)
    {
        x = x > Smallest ? x : Smallest;
        float steps = MathF.FusedMultiplyAdd(x, Log2E, RoundingBias);
        float n = steps - RoundingBias;
        float r = MathF.FusedMultiplyAdd(n, -Ln2High, x);
        r = MathF.FusedMultiplyAdd(n, -Ln2Low, r);
        float sum = MathF.FusedMultiplyAdd(r, C7, C6);
        sum = MathF.FusedMultiplyAdd(r, sum, C5);
        sum = MathF.FusedMultiplyAdd(r, sum, C4);
        sum = MathF.FusedMultiplyAdd(r, sum, C3);
        sum = MathF.FusedMultiplyAdd(r, sum, C2);
        sum = MathF.FusedMultiplyAdd(r, sum, 1f);
        sum = MathF.FusedMultiplyAdd(r, sum, 1f);
        return BitConverter.Int32BitsToSingle(BitConverter.SingleToInt32Bits(sum) + (BitConverter.SingleToInt32Bits(steps) << 23));
    }
}
