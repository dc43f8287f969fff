using System.Numerics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Steps of the types with 32 values a block: extremes of a block, scales of a batch of blocks, and nibbles with their fifth bits.</summary>
internal static class Block32
{
    public const int Values = 32;

    /// <summary>Blocks whose scales are computed together: the lanes of the widest vector.</summary>
    public const int Batch = 16;

    private static ReadOnlySpan<int> LaneBits => [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Peak<T>(ref readonly float values) where T : unmanaged, ILanes<T>
    {
        T peak = T.Broadcast(0);
        for (int i = 0; i < Values; i += T.Width) peak = T.Max(LaneMath.Abs(At<T>(in values, i)), peak);
        return T.MaxAcross(peak);
    }

    /// <summary>The value of largest magnitude, the first of several; plus zero when all are zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Extreme<T>(ref readonly float values) where T : unmanaged, ILanes<T>
    {
        float peak = Peak<T>(in values);
        if (peak == 0) return 0;
        T wanted = T.Broadcast(peak);
        uint mask = 0;
        for (int i = 0; i < Values; i += T.Width) mask |= T.TopBits(T.Equal(LaneMath.Abs(At<T>(in values, i)), wanted)) << i;
        return Unsafe.Add(ref Unsafe.AsRef(in values), BitOperations.TrailingZeroCount(mask) & (Values - 1));
    }

    /// <summary><see cref="Extreme"/> of each of at most <see cref="Batch"/> blocks: the greatest or the least value, whichever is farther from zero.</summary>
    public static void Extremes<T>(ref readonly float values, int blockCount, Span<float> extremes) where T : unmanaged, ILanes<T>
    {
        Span<float> lows = stackalloc float[Batch];
        Span<float> highs = stackalloc float[Batch];
        lows.Clear();
        highs.Clear();
        for (int b = 0; b < blockCount; b++)
        {
            T low = T.Broadcast(0);
            T high = low;
            for (int i = 0; i < Values; i += T.Width)
            {
                T value = At<T>(in values, (b * Values) + i);
                low = T.Min(value, low);
                high = T.Max(value, high);
            }

            (lows[b], highs[b]) = (T.MinAcross(low), T.MaxAcross(high));
        }

        uint ties = 0;
        for (int b = 0; b < Batch; b += T.Width)
        {
            T low = At<T>(ref lows[0], b), high = At<T>(ref highs[0], b);
            T opposite = LaneMath.Negate(low);
            T.Store(T.Select(T.Greater(high, opposite), high, low), ref extremes[b]);
            ties |= T.TopBits(T.Equal(high, opposite)) << b;
        }

        for (ties &= (1u << blockCount) - 1; ties != 0; ties &= ties - 1)
        {
            int b = BitOperations.TrailingZeroCount(ties);
            extremes[b] = Extreme<T>(ref Unsafe.Add(ref Unsafe.AsRef(in values), b * Values));
        }
    }

    /// <summary>The least and greatest value; of zeros of both signs the first.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (float Low, float High) Range<T>(ref readonly float values) where T : unmanaged, ILanes<T>
    {
        T low = At<T>(in values, 0);
        T high = low;
        for (int i = T.Width; i < Values; i += T.Width)
        {
            low = T.Min(At<T>(in values, i), low);
            high = T.Max(At<T>(in values, i), high);
        }

        float least = T.MinAcross(low);
        return (least == 0 ? FirstZero(in values) : least, T.MaxAcross(high));
    }

    /// <summary><see cref="Range"/> of each of at most <see cref="Batch"/> blocks.</summary>
    public static void Ranges<T>(ref readonly float values, int blockCount, Span<float> lows, Span<float> highs) where T : unmanaged, ILanes<T>
    {
        if (!Avx512F.IsSupported || T.Width != Batch || blockCount != Batch)
        {
            for (int b = 0; b < blockCount; b++) (lows[b], highs[b]) = Range<T>(in Unsafe.Add(ref Unsafe.AsRef(in values), b * Values));
            return;
        }

        Bounds(in values, ref lows[0], ref highs[0]);
        for (uint zeros = T.TopBits(T.Equal(At<T>(ref lows[0], 0), T.Broadcast(0))); zeros != 0; zeros &= zeros - 1)
        {
            int b = BitOperations.TrailingZeroCount(zeros);
            lows[b] = FirstZero(in Unsafe.Add(ref Unsafe.AsRef(in values), b * Values));
        }
    }

    /// <summary>The least and greatest values of 16 blocks.</summary>
    [SkipLocalsInit]
    private static void Bounds(ref readonly float values, ref float lows, ref float highs)
    {
        Span<float> rows = stackalloc float[2 * Batch * Batch];
        for (int b = 0; b < Batch; b++)
        {
            Vector512<float> first = Vector512.LoadUnsafe(in values, (nuint)(b * Values)), second = Vector512.LoadUnsafe(in values, (nuint)((b * Values) + Batch));
            Avx512F.Min(first, second).StoreUnsafe(ref rows[b * Batch]);
            Avx512F.Max(first, second).StoreUnsafe(ref rows[(Batch + b) * Batch]);
        }

        Across(rows[..(Batch * Batch)], isGreatest: false).StoreUnsafe(ref lows);
        Across(rows[(Batch * Batch)..], isGreatest: true).StoreUnsafe(ref highs);
    }

    /// <summary>The least or greatest value of each of 16 rows of 16.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Across(ReadOnlySpan<float> rows, [ConstantExpected] bool isGreatest)
    {
        Vector512<float> eight0 = Halve(FourRows(rows, isGreatest), FourRows(rows[(4 * Batch)..], isGreatest), isGreatest);
        Vector512<float> eight1 = Halve(FourRows(rows[(8 * Batch)..], isGreatest), FourRows(rows[(12 * Batch)..], isGreatest), isGreatest);
        return Halve(eight0, eight1, isGreatest);
    }

    /// <summary>Lane r of each quarter: the best of that quarter of row r.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> FourRows(ReadOnlySpan<float> rows, [ConstantExpected] bool isGreatest)
    {
        Vector512<float> row0 = Vector512.LoadUnsafe(in rows[0]), row1 = Vector512.LoadUnsafe(in rows[Batch]);
        Vector512<float> row2 = Vector512.LoadUnsafe(in rows[2 * Batch]), row3 = Vector512.LoadUnsafe(in rows[3 * Batch]);
        Vector512<double> pair01 = Better(Avx512F.UnpackLow(row0, row1), Avx512F.UnpackHigh(row0, row1), isGreatest).AsDouble();
        Vector512<double> pair23 = Better(Avx512F.UnpackLow(row2, row3), Avx512F.UnpackHigh(row2, row3), isGreatest).AsDouble();
        return Better(Avx512F.UnpackLow(pair01, pair23).AsSingle(), Avx512F.UnpackHigh(pair01, pair23).AsSingle(), isGreatest);
    }

    /// <summary>The better of neighbouring quarters, those of <paramref name="first"/> before those of <paramref name="second"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Halve(Vector512<float> first, Vector512<float> second, [ConstantExpected] bool isGreatest) =>
        Better(Avx512F.Shuffle4x128(first, second, 0b10_00_10_00), Avx512F.Shuffle4x128(first, second, 0b11_01_11_01), isGreatest);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Better(Vector512<float> left, Vector512<float> right, [ConstantExpected] bool isGreatest) =>
        isGreatest ? Avx512F.Max(left, right) : Avx512F.Min(left, right);

    /// <summary>Halves of scales and the inverses of the unrounded ones, 0 where not finite, of a batch.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Scale<T>(ref readonly float scales, ref float inverses, ref ushort halves) where T : unmanaged, ILanes<T>
    {
        for (int b = 0; b < Batch; b += T.Width)
        {
            T scale = At<T>(in scales, b);
            T.Store(LaneMath.FiniteInverse(scale), ref Unsafe.Add(ref inverses, b));
            T.StoreUShorts(HalfRows.ToHalfBits(scale), ref Unsafe.Add(ref halves, b));
        }
    }

    /// <summary>Halves of scales, and the inverses of what is stored, 0 where not finite, of a batch.</summary>
    public static void StoredScales<T>(ref readonly float scales, ref float inverses, ref ushort halves) where T : unmanaged, ILanes<T>
    {
        for (int b = 0; b < Batch; b += T.Width)
        {
            T bits = HalfRows.ToHalfBits(LaneMath.Clamp(At<T>(in scales, b), -StoredHalf.Largest, StoredHalf.Largest));
            T.Store(LaneMath.FiniteInverse(HalfRows.FromHalfBits(bits)), ref Unsafe.Add(ref inverses, b));
            T.StoreUShorts(bits, ref Unsafe.Add(ref halves, b));
        }
    }

    /// <summary>Codes <c>min(limit, trunc((value - shift) * inverse + rounding))</c> as integer lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Codes<T>(T values, T shift, T inverse, float rounding, float limit) where T : unmanaged, ILanes<T> =>
        T.ToInt(LaneMath.Clamp(((values - shift) * inverse) + T.Broadcast(rounding), 0, limit));

    /// <summary>Stores codes of values j and on, and j + 16 and on, as bytes j and on: the low nibble of the former below that of the latter. Returns their fifth bits, bit j of value j.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint StoreNibbles<T>(T low, T high, int j, ref byte nibbles) where T : unmanaged, ILanes<T>
    {
        T low4 = T.BroadcastInt(15);
        T.StoreBytes((low & low4) | T.ShiftLeft(high & low4, 4), ref Unsafe.Add(ref nibbles, j));
        return (T.TopBits(T.ShiftLeft(low, 27)) << j) | (T.TopBits(T.ShiftLeft(high, 27)) << (j + 16));
    }

    /// <summary>Values <c>(code - zero) * step + origin</c> of nibbles in the order of <see cref="StoreNibbles"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Decode<T>(ref readonly byte nibbles, float zero, float step, float origin, ref float values) where T : unmanaged, ILanes<T>
    {
        T low4 = T.BroadcastInt(15);
        (T middle, T factor, T added) = (T.Broadcast(zero), T.Broadcast(step), T.Broadcast(origin));
        for (int j = 0; j < 16; j += T.Width)
        {
            T bytes = T.LoadBytes(ref Unsafe.Add(ref Unsafe.AsRef(in nibbles), j));
            T.Store(((T.ToFloat(bytes & low4) - middle) * factor) + added, ref Unsafe.Add(ref values, j));
            T.Store(((T.ToFloat(T.ShiftRight(bytes, 4)) - middle) * factor) + added, ref Unsafe.Add(ref values, j + 16));
        }
    }

    /// <summary>As <see cref="Decode"/> with a fifth bit for each code.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void DecodeFive<T>(ref readonly byte nibbles, uint fifthBits, float zero, float step, float origin, ref float values) where T : unmanaged, ILanes<T>
    {
        T low4 = T.BroadcastInt(15);
        (T middle, T factor, T added) = (T.Broadcast(zero), T.Broadcast(step), T.Broadcast(origin));
        T laneBits = T.Load(ref Unsafe.As<int, float>(ref Unsafe.AsRef(in LaneBits[0])));
        for (int j = 0; j < 16; j += T.Width)
        {
            T bytes = T.LoadBytes(ref Unsafe.Add(ref Unsafe.AsRef(in nibbles), j));
            T low = (bytes & low4) | FifthBit<T>(fifthBits >> j, laneBits);
            T high = T.ShiftRight(bytes, 4) | FifthBit<T>(fifthBits >> (j + 16), laneBits);
            T.Store(((T.ToFloat(low) - middle) * factor) + added, ref Unsafe.Add(ref values, j));
            T.Store(((T.ToFloat(high) - middle) * factor) + added, ref Unsafe.Add(ref values, j + 16));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T At<T>(ref readonly float values, int index) where T : unmanaged, ILanes<T> => T.Load(ref Unsafe.Add(ref Unsafe.AsRef(in values), index));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T FifthBit<T>(uint bits, T laneBits) where T : unmanaged, ILanes<T> =>
        T.GreaterInt(T.BroadcastInt((int)bits) & laneBits, T.BroadcastInt(0)) & T.BroadcastInt(16);

    private static float FirstZero(ref readonly float values)
    {
        int i = 0;
        while (Unsafe.Add(ref Unsafe.AsRef(in values), i) != 0) i++;
        return Unsafe.Add(ref Unsafe.AsRef(in values), i);
    }
}
