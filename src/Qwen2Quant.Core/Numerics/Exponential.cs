using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// e^x for x up to <see cref="Largest"/>, within 2e-7 relative and with the same bits at every width: x = n ln 2 + r with |r| at most
/// ln 2 / 2, e^r by its Taylor series to the seventh power (remainder below 6e-9), times 2^n, which is exact.
/// Below <see cref="Smallest"/> the result stays at e^-87 (1.6e-38). NaN stays NaN.
/// </summary>
public static class Exponential
{
    /// <summary>Keeps n at or above -126, so that the result is a normal number.</summary>
    public const float Smallest = -87f;

    /// <summary>Keeps n at or below 127; callers bound greater values themselves.</summary>
    public const float Largest = 88f;

    /// <summary>1.5 x 2^23 rounds what it is added to to an integer; with the 127 of the exponent's bias that integer, shifted, is the float 2^n.</summary>
    private const float RoundingBias = 12582912f + 127;

    private const float Log2E = 1.44269504f;

    // ln 2 in two parts; the first has few enough bits that n times it is exact.
    private const float Ln2High = 0.693359375f;
    private const float Ln2Low = -2.12194440e-4f;

    private const float C7 = 1f / 5040, C6 = 1f / 720, C5 = 1f / 120, C4 = 1f / 24, C3 = 1f / 6, C2 = 0.5f;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Evaluate<T>(T x) where T : unmanaged, ILanes<T>
    {
        x = T.Max(T.Broadcast(Smallest), x);
        T steps = T.MultiplyAdd(x, T.Broadcast(Log2E), T.Broadcast(RoundingBias));
        T n = steps - T.Broadcast(RoundingBias);
        T r = T.MultiplyAdd(n, T.Broadcast(-Ln2High), x);
        r = T.MultiplyAdd(n, T.Broadcast(-Ln2Low), r);
        T sum = T.MultiplyAdd(r, T.Broadcast(C7), T.Broadcast(C6));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(C5));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(C4));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(C3));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(C2));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(1f));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(1f));
        return sum * T.ShiftLeft(steps, 23);
    }

    public static float Evaluate(float x) => Lanes1.SumAcross(Evaluate(Lanes1.Broadcast(x)));
}
