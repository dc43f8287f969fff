using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>bfloat16 rows: widening is exact; narrowing rounds to nearest even and keeps NaN a quiet NaN, as ggml does.</summary>
public static class BFloat16Rows
{
    public static void Widen(ReadOnlySpan<ushort> source, Span<float> destination) => Widen(Simd.Level, source, destination);

    public static void Narrow(ReadOnlySpan<float> source, Span<ushort> destination) => Narrow(Simd.Level, source, destination);

    public static ushort Narrow(float value)
    {
        ushort bits = 0;
        Lanes1.StoreUShorts(Format.ToBits(Lanes1.Broadcast(value)), ref bits);
        return bits;
    }

    internal static void Widen(SimdLevel level, ReadOnlySpan<ushort> source, Span<float> destination) => SixteenBitRows<Format>.Widen(level, source, destination);

    internal static void Narrow(SimdLevel level, ReadOnlySpan<float> source, Span<ushort> destination) => SixteenBitRows<Format>.Narrow(level, source, destination);

    internal readonly struct Format : ISixteenBitFormat
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static T FromBits<T>(T bits) where T : unmanaged, ILanes<T> => T.ShiftLeft(bits, 16);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static T ToBits<T>(T value) where T : unmanaged, ILanes<T>
        {
            T upper = T.ShiftRight(value, 16);
            T rounded = T.ShiftRight(T.AddInt(T.AddInt(value, T.BroadcastInt(0x7fff)), upper & T.BroadcastInt(1)), 16);
            T isNan = T.GreaterInt(value & T.BroadcastInt(0x7fffffff), T.BroadcastInt(0x7f800000));
            return T.Select(isNan, upper | T.BroadcastInt(0x40), rounded);
        }
    }
}
