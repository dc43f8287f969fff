using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Products of Q4_K as it is stored: the nibbles of 64 bytes are four vectors of words, two runs side by side in each.</summary>
internal readonly unsafe struct SuperNibbleRuns : IRunProducts
{
    private const int Length = IntegerForm.ScaleLength;
    private const int Half = Length / 2;
    private const int NibbleOffset = 16;

    public static int Zero => 0;

    // For each four runs a, b, c, d: even values of a and c, of b and d, then the odd ones.
    public static void Arrange(short* codes, short* arranged)
    {
        for (int run = 0; run < IntegerForm.RunsPerBlock; run++)
        {
            short* from = codes + (run * Length);
            short* to = arranged + (run / 4 * 4 * Length) + (run % 2 * Length) + (run % 4 / 2 * Half);
            for (int i = 0; i < Half; i++)
            {
                to[i] = from[2 * i];
                to[(2 * Length) + i] = from[(2 * i) + 1];
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<int> FourRuns(byte* blocks, int run, short* arranged)
    {
        arranged += run * Length;
        Vector512<ushort> words = Vector512.Load(blocks + NibbleOffset + (run * 16)).AsUInt16();
        Vector512<ushort> low = Vector512.Create((ushort)15);
        Vector512<long> ac = Avx512F.Add(Multiply(words & low, arranged), Multiply((words >>> 8) & low, arranged + (2 * Length))).AsInt64();
        Vector512<long> bd = Avx512F.Add(Multiply((words >>> 4) & low, arranged + Length), Multiply(words >>> 12, arranged + (3 * Length))).AsInt64();
        Vector512<long> first = Avx512F.PermuteVar8x64x2(ac, Vector512.Create(0, 1, 8, 9, 4, 5, 12, 13), bd);
        Vector512<long> second = Avx512F.PermuteVar8x64x2(ac, Vector512.Create(2, 3, 10, 11, 6, 7, 14, 15), bd);
        return Avx512F.Add(first.AsInt32(), second.AsInt32());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<int> Multiply(Vector512<ushort> codes, short* a) => Avx512BW.MultiplyAddAdjacent(codes.AsInt16(), Avx512BW.LoadVector512(a));
}
