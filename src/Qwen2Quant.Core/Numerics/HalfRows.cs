using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>IEEE half rows: widening is exact, narrowing rounds to nearest even, keeps denormals and overflows to infinity.</summary>
public static class HalfRows
{
    /// <summary>Every half as a float, NaN payloads kept and made quiet.</summary>
    public static void Widen(ReadOnlySpan<ushort> source, Span<float> destination) => Widen(Simd.Level, source, destination);

    public static void Narrow(ReadOnlySpan<float> source, Span<ushort> destination) => Narrow(Simd.Level, source, destination);

    internal static void Widen(SimdLevel level, ReadOnlySpan<ushort> source, Span<float> destination) => SixteenBitRows<Format>.Widen(level, source, destination);

    internal static void Narrow(SimdLevel level, ReadOnlySpan<float> source, Span<ushort> destination) => SixteenBitRows<Format>.Narrow(level, source, destination);

    /// <summary>The bits of halves nearest to floats, ties to even, as integer lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T ToHalfBits<T>(T value) where T : unmanaged, ILanes<T>
    {
        T magnitude = value & T.BroadcastInt(0x7fffffff);
        T sign = T.ShiftRight(value, 16) & T.BroadcastInt(0x8000);
        // Rebias the exponent from 127 to 15 and round: half of the last kept bit, less one where that bit is even.
        T odd = T.ShiftRight(magnitude, 13) & T.BroadcastInt(1);
        T normal = T.ShiftRight(T.AddInt(T.AddInt(magnitude, T.BroadcastInt(unchecked((int)0xc8000fff))), odd), 13);
        // Below 2^-14 adding one half leaves the denormal's ten bits, rounded, at the bottom of the sum.
        T denormal = T.AddInt(magnitude + T.Broadcast(0.5f), T.BroadcastInt(-0x3f000000));
        T finite = T.Select(T.GreaterInt(T.BroadcastInt(0x38800000), magnitude), denormal, normal);
        T bits = T.Select(T.GreaterInt(magnitude, T.BroadcastInt(0x477fffff)), T.BroadcastInt(0x7c00), finite);
        T nan = (T.ShiftRight(magnitude, 13) & T.BroadcastInt(0x3ff)) | T.BroadcastInt(0x7e00);
        return T.Select(T.GreaterInt(magnitude, T.BroadcastInt(0x7f800000)), nan, bits) | sign;
    }

    /// <summary>The floats that half bits, as integer lanes, stand for.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T FromHalfBits<T>(T bits) where T : unmanaged, ILanes<T>
    {
        T magnitude = T.ShiftLeft(bits & T.BroadcastInt(0x7fff), 13);
        T sign = T.ShiftLeft(bits & T.BroadcastInt(0x8000), 16);
        T normal = T.AddInt(magnitude, T.BroadcastInt(112 << 23));
        T denormal = T.AddInt(normal, T.BroadcastInt(1 << 23)) - T.BroadcastInt(113 << 23);
        T finite = T.Select(T.GreaterInt(T.BroadcastInt(1 << 23), magnitude), denormal, normal);
        T special = T.AddInt(normal, T.BroadcastInt(112 << 23));
        T quiet = T.GreaterInt(magnitude, T.BroadcastInt(0x7c00 << 13)) & T.BroadcastInt(0x400000);
        return T.Select(T.GreaterInt(magnitude, T.BroadcastInt((0x7c00 << 13) - 1)), special | quiet, finite) | sign;
    }

    internal readonly struct Format : ISixteenBitFormat
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static T FromBits<T>(T bits) where T : unmanaged, ILanes<T> => FromHalfBits(bits);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static T ToBits<T>(T value) where T : unmanaged, ILanes<T> => ToHalfBits(value);
    }
}
