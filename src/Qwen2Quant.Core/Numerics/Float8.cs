using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>The two 8-bit floating-point formats of the OCP specification (OFP8).</summary>
public static class Float8
{
    /// <summary>The largest finite magnitude of E4M3.</summary>
    public const float LargestE4M3 = 448;

    /// <summary>2^-6: below it steps stay 2^-9.</summary>
    private const float LeastNormal = 1f / 64;

    /// <summary>1.5 x 2^23: adding and subtracting a power of two times it rounds to integer multiples of that power, ties to even.</summary>
    private const float RoundingShift = 12582912f;

    /// <summary>What is added to a float's upper bits to have E4M3's: exponents count from 7, not 127.</summary>
    private const int ExponentShift = (127 - 7) << 3;

    /// <summary>The finite values of E4M3 in ascending order, as a solver counts them: minus zero lies before zero. Place p below 127 is code 0xFE - p, others are p - 127.</summary>
    public static float[] LevelsE4M3 { get; } = [.. Enumerable.Range(0, 254).Select(place => FromE4M3(CodeAt(place)))];

    /// <summary>The code of a place in <see cref="LevelsE4M3"/>.</summary>
    public static byte CodeAt(int place) => (byte)(place < 127 ? 0xFE - place : place - 127);

    /// <summary>The inverse of <see cref="CodeAt"/>; NaN becomes the largest magnitude of its sign.</summary>
    public static int PlaceOf(byte code) => code >= 0x80 ? Math.Max(0xFE - code, 0) : Math.Min(code, (byte)0x7E) + 127;

    public static float FromE4M3(byte bits)
    {
        int exponent = (bits >> 3) & 15;
        int mantissa = bits & 7;
        if ((bits & 0x7f) == 0x7f) return float.NaN;
        float magnitude = exponent == 0 ? MathF.ScaleB(mantissa, -9) : MathF.ScaleB(8 + mantissa, exponent - 10);
        return (bits & 0x80) != 0 ? -magnitude : magnitude;
    }

    /// <summary>The nearest E4M3 value, ties to even; magnitudes beyond the largest become it, since an overflow would be NaN.</summary>
    public static byte ToE4M3(float value)
    {
        byte code = 0;
        Lanes1.StoreBytes(ToE4M3(Lanes1.Broadcast(value)), ref code);
        return code;
    }

    /// <summary>Values of codes, as integer lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T FromE4M3<T>(T codes) where T : unmanaged, ILanes<T>
    {
        T magnitude = codes & T.BroadcastInt(0x7f);
        T normal = T.ShiftLeft(T.AddInt(magnitude, T.BroadcastInt(ExponentShift)), 20);
        T value = T.Select(T.GreaterInt(T.BroadcastInt(8), magnitude), T.ToFloat(magnitude) * T.Broadcast(1 / 512f), normal);
        T isNan = T.GreaterInt(magnitude, T.BroadcastInt(0x7e));
        return T.Select(isNan, T.Broadcast(float.NaN), value | T.ShiftLeft(T.ShiftRight(codes, 7), 31));
    }

    /// <summary>Codes of the nearest values, as integer lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T ToE4M3<T>(T values) where T : unmanaged, ILanes<T> => MagnitudesE4M3(values) | T.ShiftLeft(T.ShiftRight(values, 31), 7);

    /// <summary>Places of the nearest values in <see cref="LevelsE4M3"/>, as floats.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T PlacesE4M3<T>(T values) where T : unmanaged, ILanes<T>
    {
        T magnitude = T.ToFloat(MagnitudesE4M3(values));
        return T.Select(T.Greater(T.Broadcast(0), values), T.Broadcast(126) - magnitude, T.Broadcast(127) + magnitude);
    }

    /// <summary>The entries of <see cref="LevelsE4M3"/> at places that are floats.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T AtPlacesE4M3<T>(T places) where T : unmanaged, ILanes<T>
    {
        T isNegative = T.Greater(T.Broadcast(127), places);
        T magnitude = T.ToInt(T.Select(isNegative, T.Broadcast(126) - places, places - T.Broadcast(127)));
        return FromE4M3(magnitude) | (isNegative & T.Broadcast(-0f));
    }

    /// <summary>The nearest magnitudes, as floats. <paramref name="magnitudes"/> are not negative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T RoundE4M3<T>(T magnitudes) where T : unmanaged, ILanes<T>
    {
        T limited = T.Min(magnitudes, T.Broadcast(LargestE4M3));
        T power = limited & T.BroadcastInt(0x7f800000);
        T shift = T.Max(power * T.Broadcast(RoundingShift / 8), T.Broadcast(RoundingShift / 512));
        return (limited + shift) - shift;
    }

    // The layout is a half cut to its upper byte.
    public static float FromE5M2(byte bits) => (float)BitConverter.UInt16BitsToHalf((ushort)(bits << 8));

    /// <summary>Codes of the nearest magnitudes, as integer lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T MagnitudesE4M3<T>(T values) where T : unmanaged, ILanes<T>
    {
        T magnitude = RoundE4M3(LaneMath.Abs(values));
        T normal = T.AddInt(T.ShiftRight(magnitude, 20), T.BroadcastInt(-ExponentShift));
        return T.Select(T.Greater(T.Broadcast(LeastNormal), magnitude), T.ToInt(magnitude * T.Broadcast(512)), normal);
    }
}
