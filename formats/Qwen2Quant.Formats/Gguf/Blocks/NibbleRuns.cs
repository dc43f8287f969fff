using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Products of Q4_0, Q4_1, Q5_0 and Q5_1 as they are stored: the nibbles of four blocks are four vectors of words, each word a value of its run,
/// and centred codes are mended after the sum.
/// </summary>
internal readonly unsafe struct NibbleRuns<TFormat> : IRunProducts where TFormat : struct, INibbleFormat
{
    private const int Length = IntegerForm.ScaleLength;

    // Words of a run in each of the four vectors.
    private const int Words = 8;

    // Fifth bits are brought to their places by AVX512_VBMI.
    private static bool IsDirect
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => TFormat.CodeBits == 4 || Avx512Vbmi.IsSupported;
    }

    public static int Zero
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => IsDirect ? NibbleBlock<TFormat>.Zero : 0;
    }

    public static void Arrange(short* codes, short* arranged)
    {
        if (!IsDirect)
        {
            WidenedRuns<NibbleBlock<TFormat>>.Arrange(codes, arranged);
            return;
        }

        for (int run = 0; run < IntegerForm.RunsPerBlock; run++)
        {
            for (int nibble = 0; nibble < 4; nibble++)
            {
                short* from = codes + (run * Length) + FirstValue(nibble);
                short* to = arranged + (run / 4 * 4 * Length) + (nibble * Length) + (run % 4 * Words);
                for (int word = 0; word < Words; word++) to[word] = from[2 * word];
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<int> FourRuns(byte* blocks, int run, short* arranged)
    {
        if (!IsDirect) return WidenedRuns<NibbleBlock<TFormat>>.FourRuns(blocks, run, arranged);
        int blockBytes = NibbleBlock<TFormat>.BlockBytes;
        blocks += run * blockBytes;
        arranged += run * Length;
        byte* nibbles = blocks + NibbleBlock<TFormat>.NibbleOffset;
        Vector512<ushort> words = Vector512.Create(
            Vector256.Create(Vector128.Load(nibbles), Vector128.Load(nibbles + blockBytes)),
            Vector256.Create(Vector128.Load(nibbles + (2 * blockBytes)), Vector128.Load(nibbles + (3 * blockBytes)))).AsUInt16();
        Vector512<ushort> low = Vector512.Create((ushort)15);
        Vector512<ushort> n0 = words & low, n1 = (words >>> 4) & low, n2 = (words >>> 8) & low, n3 = words >>> 12;
        if (TFormat.CodeBits == 5)
        {
            byte* bits = blocks + NibbleBlock<TFormat>.FifthBitOffset;
            Vector128<uint> four = Vector128.Create(*(uint*)bits, *(uint*)(bits + blockBytes), *(uint*)(bits + (2 * blockBytes)), *(uint*)(bits + (3 * blockBytes)));
            Vector512<byte> spread = Avx512F.PermuteVar16x32(four.ToVector256Unsafe().ToVector512Unsafe(), Vector512.Create(0u, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)).AsByte();
            n0 |= FifthBits(spread, 0);
            n1 |= FifthBits(spread, 1);
            n2 |= FifthBits(spread, 2);
            n3 |= FifthBits(spread, 3);
        }

        Vector512<int> sum = Avx512F.Add(Multiply(n0, arranged), Multiply(n1, arranged + Length));
        return Avx512F.Add(sum, Avx512F.Add(Multiply(n2, arranged + (2 * Length)), Multiply(n3, arranged + (3 * Length))));
    }

    // Of a word's four nibbles, lowest first: the first value of its run that it holds.
    private static int FirstValue(int nibble) => (16 * (nibble & 1)) + (nibble >> 1);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<int> Multiply(Vector512<ushort> codes, short* a) => Avx512BW.MultiplyAddAdjacent(codes.AsInt16(), Avx512BW.LoadVector512(a));

    // 16 in each word whose value has its bit among the 32 of its run, which fill the lane: eight bits are taken from four below the bit on.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<ushort> FifthBits(Vector512<byte> bits, int nibble)
    {
        int first = (16 * (nibble & 1)) + (nibble >> 1) - 4;
        Vector512<byte> offsets = (Vector512.Create(0x0006_0004_0002_0000ul, 0x000e_000c_000a_0008, 0x0006_0004_0002_0000, 0x000e_000c_000a_0008, 0x0006_0004_0002_0000, 0x000e_000c_000a_0008, 0x0006_0004_0002_0000, 0x000e_000c_000a_0008).AsByte()
            + Vector512.Create((byte)(first & 63))) & Vector512.Create((byte)63);
        return Avx512Vbmi.MultiShift(offsets, bits.AsUInt64()).AsUInt16() & Vector512.Create((ushort)16);
    }
}
