using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Products of integers that are widened run by run, of any format.</summary>
internal readonly unsafe struct WidenedRuns<TFormat> : IRunProducts where TFormat : struct, IIntegerFormat
{
    private const int Length = IntegerForm.ScaleLength;

    public static int Zero => 0;

    public static void Arrange(short* codes, short* arranged) => Unsafe.CopyBlock(arranged, codes, IntegerForm.RunsPerBlock * Length * sizeof(short));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<int> FourRuns(byte* blocks, int run, short* arranged)
    {
        arranged += run * Length;
        Vector512<int> p0 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(arranged), RunAt(blocks, run));
        Vector512<int> p1 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(arranged + Length), RunAt(blocks, run + 1));
        Vector512<int> p2 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(arranged + (2 * Length)), RunAt(blocks, run + 2));
        Vector512<int> p3 = Avx512BW.MultiplyAddAdjacent(Avx512BW.LoadVector512(arranged + (3 * Length)), RunAt(blocks, run + 3));
        Vector512<int> q0 = Avx512F.Add(Avx512F.Shuffle4x128(p0, p1, 0x44), Avx512F.Shuffle4x128(p0, p1, 0xee));
        Vector512<int> q1 = Avx512F.Add(Avx512F.Shuffle4x128(p2, p3, 0x44), Avx512F.Shuffle4x128(p2, p3, 0xee));
        return Avx512F.Add(Avx512F.Shuffle4x128(q0, q1, 0x88), Avx512F.Shuffle4x128(q0, q1, 0xdd));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<short> RunAt(byte* blocks, int run) => TFormat.BlockValues == Length
        ? TFormat.Codes(ref blocks[run * TFormat.BlockBytes], 0)
        : TFormat.Codes(ref *blocks, run);
}
