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
}

/// <summary>The integers of a block format, row by row.</summary>
internal sealed unsafe class BlockIntegers<TFormat> : IntegerForm where TFormat : struct, IIntegerFormat
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

    [SkipLocalsInit]
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override void Dots(byte* blocks, long rowBytes, int rowCount, int depth, in IntegerInput input, float* c, bool accumulate)
    {
        float* scales = stackalloc float[3 * RunsPerBlock];
        float* origins = scales + RunsPerBlock;
        float* sums = origins + RunsPerBlock;
        int runCount = depth / ScaleLength;
        for (int row = 0; row < rowCount; row++)
        {
            byte* block = blocks + (row * rowBytes);
            float result = accumulate ? c[row] : 0, origin = 0;
            for (int first = 0; first < runCount; first += RunsPerBlock)
            {
                int runs = Math.Min(RunsPerBlock, runCount - first);
                byte* begin = block;
                for (int run = 0; run < runs; run += RunsOfBlock)
                {
                    Sse.Prefetch0(block + BytesAhead);
                    if (TFormat.BlockBytes > 64) Sse.Prefetch0(block + BytesAhead + 64);
                    if (TFormat.BlockBytes > 128) Sse.Prefetch0(block + BytesAhead + 128);
                    TFormat.UnpackScales(ref *block, ref scales[run], ref origins[run], 1);
                    block += TFormat.BlockBytes;
                }

                short* a = input.Codes + (first / RunsPerBlock * input.CodeStride);
                float* aScales = input.Scales + (first / RunsPerBlock * input.ScaleStride);
                float sum = 0;
                if (runs == RunsPerBlock)
                {
                    // Scales are multiplied one by one: a wide load would wait for the narrow stores that wrote them.
                    Avx.Store(sums, Avx.ConvertToVector256Single(EightSums(begin, a)));
                    for (int run = 0; run < RunsPerBlock; run++) sum = MathF.FusedMultiplyAdd(sums[run], aScales[run] * scales[run], sum);
                }
                else
                {
                    for (int run = 0; run < runs; run++)
                    {
                        Vector512<int> products = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(a + (run * ScaleLength)), RunAt(begin, run));
                        sum = MathF.FusedMultiplyAdd(Vector512.Sum(products), aScales[run] * scales[run], sum);
                    }
                }

                result = accumulate || first > 0 ? result + sum : sum;
                if (!TFormat.HasOrigins) continue;
                for (int run = 0; run < runs; run++) origin = MathF.FusedMultiplyAdd(input.Sums[first + run], origins[run], origin);
            }

            c[row] = TFormat.HasOrigins ? result + origin : result;
        }
    }

    // How far ahead rows are asked for: the blocks' odd sizes hide from the processor that they follow one another.
    private const int BytesAhead = 4096;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<short> RunAt(byte* blocks, int run) =>
        RunsOfBlock == 1 ? TFormat.Codes(ref blocks[run * TFormat.BlockBytes], 0) : TFormat.Codes(ref blocks[run / RunsOfBlock * TFormat.BlockBytes], run % RunsOfBlock);

    // The sums of the products of eight runs of 32.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> EightSums(byte* blocks, short* a)
    {
        Vector512<int> low = FourSums(blocks, 0, a), high = FourSums(blocks, 4, a + (4 * ScaleLength));
        Vector512<int> halves = Avx512F.Add(Avx512F.Shuffle4x128(low, high, 0x44), Avx512F.Shuffle4x128(low, high, 0xee));
        Vector512<int> sums = Avx512F.Add(halves, Avx512F.Shuffle4x128(halves, halves, 0xb1));
        return Vector256.Create(sums.GetLower().GetLower(), sums.GetUpper().GetLower());
    }

    // In each 128-bit lane four runs' sums of that lane's products.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<int> FourSums(byte* blocks, int run, short* a)
    {
        Vector512<int> p0 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(a), RunAt(blocks, run));
        Vector512<int> p1 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(a + ScaleLength), RunAt(blocks, run + 1));
        Vector512<int> p2 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(a + (2 * ScaleLength)), RunAt(blocks, run + 2));
        Vector512<int> p3 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(a + (3 * ScaleLength)), RunAt(blocks, run + 3));
        Vector512<long> q0 = Avx512F.Add(Avx512F.UnpackLow(p0, p1), Avx512F.UnpackHigh(p0, p1)).AsInt64();
        Vector512<long> q1 = Avx512F.Add(Avx512F.UnpackLow(p2, p3), Avx512F.UnpackHigh(p2, p3)).AsInt64();
        return Avx512F.Add(Avx512F.UnpackLow(q0, q1).AsInt32(), Avx512F.UnpackHigh(q0, q1).AsInt32());
    }
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

    /// <summary>Two scales, each for 16 values.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Pair(int first, int second) => Vector512.Create(Vector256.Create((short)first), Vector256.Create((short)second));
}
