using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
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
        Lanes1.StoreUShorts(ToBits(Lanes1.Broadcast(value)), ref bits);
        return bits;
    }

    internal static void Widen(SimdLevel level, ReadOnlySpan<ushort> source, Span<float> destination)
    {
        if (level >= SimdLevel.Avx512) Widen<Lanes512>(source, destination);
        else if (level >= SimdLevel.Avx2) Widen<Lanes256>(source, destination);
        else if (level >= SimdLevel.Vector128) Widen<Lanes128>(source, destination);
        else Widen<Lanes1>(source, destination);
    }

    internal static void Narrow(SimdLevel level, ReadOnlySpan<float> source, Span<ushort> destination)
    {
        if (level >= SimdLevel.Avx512) Narrow<Lanes512>(source, destination);
        else if (level >= SimdLevel.Avx2) Narrow<Lanes256>(source, destination);
        else if (level >= SimdLevel.Vector128) Narrow<Lanes128>(source, destination);
        else Narrow<Lanes1>(source, destination);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T ToBits<T>(T value) where T : unmanaged, ILanes<T>
    {
        T upper = T.ShiftRight(value, 16);
        T rounded = T.ShiftRight(T.AddInt(T.AddInt(value, T.BroadcastInt(0x7fff)), upper & T.BroadcastInt(1)), 16);
        T isNan = T.GreaterInt(value & T.BroadcastInt(0x7fffffff), T.BroadcastInt(0x7f800000));
        return T.Select(isNan, upper | T.BroadcastInt(0x40), rounded);
    }

    private static void Widen<T>(ReadOnlySpan<ushort> source, Span<float> destination) where T : unmanaged, ILanes<T>
    {
        destination = destination[..source.Length];
        ref ushort from = ref MemoryMarshal.GetReference(source);
        ref float to = ref MemoryMarshal.GetReference(destination);
        int i = 0;
        for (; i <= source.Length - T.Width; i += T.Width)
        {
            T.Store(T.ShiftLeft(T.LoadUShorts(ref Unsafe.Add(ref from, i)), 16), ref Unsafe.Add(ref to, i));
        }

        for (; i < source.Length; i++) Lanes1.Store(Lanes1.ShiftLeft(Lanes1.LoadUShorts(ref Unsafe.Add(ref from, i)), 16), ref Unsafe.Add(ref to, i));
    }

    private static void Narrow<T>(ReadOnlySpan<float> source, Span<ushort> destination) where T : unmanaged, ILanes<T>
    {
        destination = destination[..source.Length];
        ref float from = ref MemoryMarshal.GetReference(source);
        ref ushort to = ref MemoryMarshal.GetReference(destination);
        int i = 0;
        for (; i <= source.Length - T.Width; i += T.Width)
        {
            T.StoreUShorts(ToBits(T.Load(ref Unsafe.Add(ref from, i))), ref Unsafe.Add(ref to, i));
        }

        for (; i < source.Length; i++) Lanes1.StoreUShorts(ToBits(Lanes1.Load(ref Unsafe.Add(ref from, i))), ref Unsafe.Add(ref to, i));
    }
}
