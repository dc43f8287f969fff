using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A block format whose values are integers under a scale, and an origin, for each 32 of them.</summary>
internal interface IntegerFormat : IBlockFormat
{
    static abstract bool HasOrigins { get; }

    /// <summary>One block: value i is <c>scales[i / 32] * codes[i] + origins[i / 32]</c>, scales and origins <paramref name="stride"/> floats apart, |code| at most <see cref="IntegerForm.LargestCode"/>.</summary>
    static abstract void UnpackIntegers(ref readonly byte block, ref short codes, ref float scales, ref float origins, int stride);
}

/// <summary>The integers of a block format, row by row.</summary>
internal sealed unsafe class BlockIntegers<TFormat> : IntegerForm where TFormat : struct, IntegerFormat
{
    public override bool HasOrigins => TFormat.HasOrigins;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override void Unpack(byte* blocks, int valueCount, short* codes, float* scales, float* origins, int stride)
    {
        for (int i = 0; i < valueCount; i += TFormat.BlockValues)
        {
            TFormat.UnpackIntegers(ref *blocks, ref codes[i], ref *scales, ref *origins, stride);
            blocks += TFormat.BlockBytes;
            scales += TFormat.BlockValues / ScaleLength * stride;
            origins += TFormat.BlockValues / ScaleLength * stride;
        }
    }
}

/// <summary>Sixteen bytes at a time as shorts.</summary>
internal static class Shorts
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<short> FromBytes(ref readonly byte bytes) => Vector256.WidenLower(Vector128.LoadUnsafe(in bytes).ToVector256Unsafe()).AsInt16();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<short> FromSBytes(Vector128<sbyte> bytes) => Vector256.WidenLower(bytes.ToVector256Unsafe());

    /// <summary>Sixteen bytes of nibbles, value j below value j + 16.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Vector256<short> Low, Vector256<short> High) Nibbles(ref readonly byte bytes)
    {
        Vector256<short> both = FromBytes(in bytes);
        return (both & Vector256.Create((short)15), Vector256.ShiftRightLogical(both, 4));
    }

    /// <summary>Sixteen where bit j of <paramref name="bits"/> is set in lane j, else zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<short> FifthBits(uint bits)
    {
        Vector256<short> place = Vector256.Create(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, unchecked((short)32768));
        return Vector256.Equals(Vector256.Create((short)bits) & place, place) & Vector256.Create((short)16);
    }

    /// <summary>32 integers of a table of 16, value j from the low nibble of byte j and j + 16 from the high one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Lookup(ref readonly byte nibbles, Vector128<sbyte> table, ref short codes)
    {
        Vector128<byte> both = Vector128.LoadUnsafe(in nibbles);
        Vector128<sbyte> low = (both & Vector128.Create((byte)15)).AsSByte(), high = Vector128.ShiftRightLogical(both, 4).AsSByte();
        FromSBytes(Vector128.Shuffle(table, low)).StoreUnsafe(ref codes);
        FromSBytes(Vector128.Shuffle(table, high)).StoreUnsafe(ref codes, 16);
    }
}
