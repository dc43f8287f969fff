using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// e^x for x up to <see cref="Largest"/>, within 2e-7 relative and with the same bits at every width: x = n ln 2 + r with |r| at most
/// ln 2 / 2, e^r by a polynomial of the sixth degree (off by at most 3.2e-9), times 2^n, which is exact.
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

    // Of 1 + r + r^2 (C2 + ... + C6 r^4), chosen for the least greatest relative error over |r| <= ln 2 / 2; each rounded before the next was fitted.
    private const float C6 = 0.00138206896f, C5 = 0.0083686756f, C4 = 0.0416682661f, C3 = 0.166665211f, C2 = 0.49999994f;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Evaluate<T>(T x) where T : unmanaged, ILanes<T>
    {
        x = T.Max(T.Broadcast(Smallest), x);
        T steps = T.MultiplyAdd(x, T.Broadcast(Log2E), T.Broadcast(RoundingBias));
        T n = steps - T.Broadcast(RoundingBias);
        T r = T.MultiplyAdd(n, T.Broadcast(-Ln2High), x);
        r = T.MultiplyAdd(n, T.Broadcast(-Ln2Low), r);
        // In pairs (Estrin), for a short chain of dependent products; the last two steps, which set the error, one after the other (Horner).
        T square = r * r;
        T sum = T.MultiplyAdd(square, T.Broadcast(C6), T.MultiplyAdd(r, T.Broadcast(C5), T.Broadcast(C4)));
        sum = T.MultiplyAdd(square, sum, T.MultiplyAdd(r, T.Broadcast(C3), T.Broadcast(C2)));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(1f));
        sum = T.MultiplyAdd(r, sum, T.Broadcast(1f));
        return sum * T.ShiftLeft(steps, 23);
    }

    public static float Evaluate(float x) => Lanes1.SumAcross(Evaluate(Lanes1.Broadcast(x)));
}
