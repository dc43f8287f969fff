using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>A float format of 16 bits, over lanes of any width.</summary>
internal interface ISixteenBitFormat
{
    /// <summary>The floats that bits, as integer lanes, stand for.</summary>
    static abstract T FromBits<T>(T bits) where T : unmanaged, ILanes<T>;

    /// <summary>The bits nearest to floats, ties to even, as integer lanes.</summary>
    static abstract T ToBits<T>(T value) where T : unmanaged, ILanes<T>;
}

/// <summary>Rows of a 16-bit format to floats and back, the same bits at every width.</summary>
internal static class SixteenBitRows<TFormat> where TFormat : ISixteenBitFormat
{
    public static void Widen(SimdLevel level, ReadOnlySpan<ushort> source, Span<float> destination)
    {
        if (level >= SimdLevel.Avx512) Widen<Lanes512>(source, destination);
        else if (level >= SimdLevel.Avx2) Widen<Lanes256>(source, destination);
        else if (level >= SimdLevel.Vector128) Widen<Lanes128>(source, destination);
        else Widen<Lanes1>(source, destination);
    }

    public static void Narrow(SimdLevel level, ReadOnlySpan<float> source, Span<ushort> destination)
    {
        if (level >= SimdLevel.Avx512) Narrow<Lanes512>(source, destination);
        else if (level >= SimdLevel.Avx2) Narrow<Lanes256>(source, destination);
        else if (level >= SimdLevel.Vector128) Narrow<Lanes128>(source, destination);
        else Narrow<Lanes1>(source, destination);
    }

    private static void Widen<T>(ReadOnlySpan<ushort> source, Span<float> destination) where T : unmanaged, ILanes<T>
    {
        destination = destination[..source.Length];
        ref ushort from = ref MemoryMarshal.GetReference(source);
        ref float to = ref MemoryMarshal.GetReference(destination);
        int i = 0;
        for (; i <= source.Length - T.Width; i += T.Width)
        {
            T.Store(TFormat.FromBits(T.LoadUShorts(ref Unsafe.Add(ref from, i))), ref Unsafe.Add(ref to, i));
        }

        for (; i < source.Length; i++) Lanes1.Store(TFormat.FromBits(Lanes1.LoadUShorts(ref Unsafe.Add(ref from, i))), ref Unsafe.Add(ref to, i));
    }

    private static void Narrow<T>(ReadOnlySpan<float> source, Span<ushort> destination) where T : unmanaged, ILanes<T>
    {
        destination = destination[..source.Length];
        ref float from = ref MemoryMarshal.GetReference(source);
        ref ushort to = ref MemoryMarshal.GetReference(destination);
        int i = 0;
        for (; i <= source.Length - T.Width; i += T.Width)
        {
            T.StoreUShorts(TFormat.ToBits(T.Load(ref Unsafe.Add(ref from, i))), ref Unsafe.Add(ref to, i));
        }

        for (; i < source.Length; i++) Lanes1.StoreUShorts(TFormat.ToBits(Lanes1.Load(ref Unsafe.Add(ref from, i))), ref Unsafe.Add(ref to, i));
    }
}
