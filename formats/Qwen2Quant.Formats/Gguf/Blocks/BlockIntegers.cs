using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A block format whose values are integers under a scale, and an origin, for each run of 32 of them.</summary>
internal interface IIntegerFormat : IBlockFormat
{
    static abstract bool HasOrigins { get; }

    /// <summary>Scales of a block's runs, and origins where the format has them, <paramref name="stride"/> floats apart.</summary>
    static abstract void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride);

    /// <summary>The 32 integers of run <paramref name="run"/> of a block, of magnitude <see cref="IntegerForm.LargestCode"/> at most: value i is scale times integer i plus origin.</summary>
    static abstract Vector512<short> Codes(ref readonly byte block, int run);

    /// <summary>The scales, and origins where the format has them, of the eight runs from a block on.</summary>
    static abstract unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins);
}

/// <summary>How <see cref="IntegerForm.Dots"/> multiplies the integers of a format (AVX-512).</summary>
internal unsafe interface IRunProducts
{
    /// <summary>As <see cref="IntegerForm.Zero"/>.</summary>
    static abstract int Zero { get; }

    /// <summary>As <see cref="IntegerForm.Arrange"/>.</summary>
    static abstract void Arrange(short* codes, short* arranged);

    /// <summary>Products of arranged activations with runs <paramref name="run"/> (0 or 4) to run + 3 of the 256 values from a block on: lane i of 128 bits has four sums that make up run i's.</summary>
    static abstract Vector512<int> FourRuns(byte* blocks, int run, short* arranged);
}

/// <summary>The integers of a block format, row by row.</summary>
internal sealed unsafe class BlockIntegers<TFormat, TProducts> : IntegerForm where TFormat : struct, IIntegerFormat where TProducts : struct, IRunProducts
{
    private static int RunsOfBlock => TFormat.BlockValues / ScaleLength;

    public override bool HasOrigins => TFormat.HasOrigins;

    public override bool HasDots => Avx512BW.IsSupported && Fma.IsSupported;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override void Unpack(byte* blocks, int valueCount, short* codes, float* scales, float* origins, int stride)
    {
        for (int i = 0; i < valueCount; i += TFormat.BlockValues)
        {
            TFormat.UnpackScales(ref *blocks, ref *scales, ref *origins, stride);
            for (int run = 0; run < RunsOfBlock; run++)
            {
                TFormat.Codes(ref *blocks, run).Store(codes);
                codes += ScaleLength;
            }

            blocks += TFormat.BlockBytes;
            scales += RunsOfBlock * stride;
            origins += RunsOfBlock * stride;
        }
    }

    public override int Zero => TProducts.Zero;

    public override void Arrange(short* codes, short* arranged) => TProducts.Arrange(codes, arranged);

    public override void Dots(byte* blocks, long rowBytes, int rowCount, int depth, in IntegerInput input, float* c, bool accumulate) =>
        BlockDots<TFormat, TProducts>.Run(blocks, rowBytes, rowCount, depth, input, c, accumulate);
}

/// <summary>Bytes of blocks to the 32 shorts of a run.</summary>
internal static class Shorts
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Widen(Vector256<sbyte> bytes) =>
        Avx512BW.IsSupported ? Avx512BW.ConvertToVector512Int16(bytes) : Vector512.Create(Vector256.WidenLower(bytes), Vector256.WidenUpper(bytes));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<byte> Load(ref readonly byte bytes) => Vector256.LoadUnsafe(in bytes);

    /// <summary>The bits of each byte from <paramref name="shift"/> on under a mask.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<byte> Bits(Vector256<byte> bytes, int shift, byte mask) => Vector256.ShiftRightLogical(bytes.AsUInt16(), shift).AsByte() & Vector256.Create(mask);

    /// <summary>32 nibbles, value j in the low half of byte j and j + 16 in its high half.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<byte> Nibbles(ref readonly byte bytes)
    {
        Vector128<byte> both = Vector128.LoadUnsafe(in bytes);
        return Vector256.Create(both, Vector128.ShiftRightLogical(both.AsUInt16(), 4).AsByte()) & Vector256.Create((byte)15);
    }

    /// <summary>16 in byte j where bit j is set, else 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<byte> FifthBits(uint bits)
    {
        Vector256<byte> indices = Vector256.Create(0ul, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303).AsByte();
        Vector256<byte> all = Vector256.Create(bits).AsByte();
        Vector256<byte> spread = Avx2.IsSupported ? Avx2.Shuffle(all, indices) : Vector256.Shuffle(all, indices);
        Vector256<byte> place = Vector256.Create(0x8040201008040201ul).AsByte();
        return Vector256.Equals(spread & place, place) & Vector256.Create((byte)16);
    }

    /// <summary>Entries of a table of 16 that nibbles ask for.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Lookup(ref readonly byte nibbles, Vector128<sbyte> table)
    {
        Vector256<sbyte> indices = Nibbles(in nibbles).AsSByte(), both = Vector256.Create(table, table);
        return Widen(Avx2.IsSupported
            ? Avx2.Shuffle(both, indices)
            : Vector256.Create(Vector128.Shuffle(table, indices.GetLower()), Vector128.Shuffle(table, indices.GetUpper())));
    }

    /// <summary>As <see cref="IIntegerFormat.EightScales"/>, one by one, of a format without origins.</summary>
    [SkipLocalsInit]
    public static unsafe Vector256<float> UnpackedScales<TFormat>(byte* blocks, out Vector256<float> origins) where TFormat : struct, IIntegerFormat
    {
        float* scales = stackalloc float[8];
        float none = 0;
        int runs = TFormat.BlockValues / IntegerForm.ScaleLength;
        for (int run = 0; run < 8; run += runs) TFormat.UnpackScales(ref blocks[run / runs * TFormat.BlockBytes], ref scales[run], ref none, 1);
        origins = default;
        return Vector256.Load(scales);
    }

    /// <summary>Two scales, each for 16 values.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Pair(int first, int second) => Vector512.Create(Vector256.Create((short)first), Vector256.Create((short)second));
}
