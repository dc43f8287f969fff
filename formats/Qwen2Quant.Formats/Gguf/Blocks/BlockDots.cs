using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Products of one row of activations with blocks as they lie (AVX-512). The integers' sums are exact in any order; the floats are summed run by run as in the
/// matrix product, for four rows of weights at once. The rows are read one after the other, because memory is fast in its own order only.
/// </summary>
internal static unsafe class BlockDots<TFormat, TProducts> where TFormat : struct, IIntegerFormat where TProducts : struct, IRunProducts
{
    private const int RunLength = IntegerForm.ScaleLength;
    private const int Runs = IntegerForm.RunsPerBlock;
    private const int Rows = 4;

    // Runs of one pass, so many that what is kept of them stays in the first-level cache.
    private const int PassRuns = 160;

    // Bytes of a block of one run, at most.
    private const int LargestBlock = 64;

    private static int RunsOfBlock
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => TFormat.BlockValues / RunLength;
    }

    private static int EightBytes
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => Runs / RunsOfBlock * TFormat.BlockBytes;
    }

    /// <summary>As <see cref="IntegerForm.Dots"/>.</summary>
    [SkipLocalsInit]
    public static void Run(byte* blocks, long rowBytes, int rowCount, int depth, in IntegerInput input, float* c, bool accumulate)
    {
        // Four sums for each run, then its scale and its origin: in fours or eights of runs, then in rows.
        int* products = stackalloc int[4 * PassRuns * Rows];
        float* scales = stackalloc float[PassRuns * Rows];
        float* origins = stackalloc float[PassRuns * Rows];
        float* results = stackalloc float[Rows];
        int runCount = depth / RunLength;
        for (int row = 0; row < rowCount; row += Rows)
        {
            int count = Math.Min(Rows, rowCount - row);
            if (accumulate) new ReadOnlySpan<float>(c + row, count).CopyTo(new Span<float>(results, Rows));
            Vector128<float> result = accumulate ? Vector128.Load(results) : Vector128<float>.Zero;
            Vector128<float> origin = Vector128<float>.Zero;
            for (int first = 0; first < runCount; first += PassRuns)
            {
                int runs = Math.Min(PassRuns, runCount - first);
                byte* begin = blocks + (row * rowBytes) + (first / RunsOfBlock * TFormat.BlockBytes);
                for (int i = 0; i < count; i++)
                {
                    ReadRow(begin + (i * rowBytes), runs, input.Codes + (first * RunLength), products + (i * 16), scales + (i * Runs), origins + (i * Runs));
                }

                (result, origin) = Sum(products, scales, origins, runs, first * Rows, input, result, origin, accumulate || first > 0);
            }

            (TFormat.HasOrigins ? result + origin : result).Store(results);
            new ReadOnlySpan<float>(results, count).CopyTo(new Span<float>(c + row, count));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static void ReadRow(byte* blocks, int runs, short* a, int* products, float* scales, float* origins)
    {
        for (; runs >= Runs; runs -= Runs)
        {
            TFormat.EightScales(blocks, out Vector256<float> origin).Store(scales);
            if (TFormat.HasOrigins) origin.Store(origins);
            TProducts.FourRuns(blocks, 0, a).Store(products);
            TProducts.FourRuns(blocks, 4, a).Store(products + (16 * Rows));
            blocks += EightBytes;
            a += Runs * RunLength;
            products += 2 * 16 * Rows;
            scales += Runs * Rows;
            origins += Runs * Rows;
        }

        if (RunsOfBlock == 1 && runs > 0) ReadRest(blocks, runs, a, products, scales, origins);
    }

    // What lies behind the last block may not be read.
    [SkipLocalsInit]
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static void ReadRest(byte* blocks, int runs, short* a, int* products, float* scales, float* origins)
    {
        byte* rest = stackalloc byte[Runs * LargestBlock];
        for (int run = 0; run < runs; run++) TFormat.UnpackScales(ref blocks[run * TFormat.BlockBytes], ref scales[run], ref origins[run], 1);
        if (runs >= 4) TProducts.FourRuns(blocks, 0, a).Store(products);
        if (runs % 4 == 0) return;
        Unsafe.CopyBlock(rest, blocks, (uint)(runs * TFormat.BlockBytes));
        TProducts.FourRuns(rest, runs & 4, a).Store(products + (runs / 4 * 16 * Rows));
    }

    // Adds the products of a pass to the results, and those of the origins to theirs.
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static (Vector128<float> Result, Vector128<float> Origin) Sum(
        int* products, float* scales, float* origins, int runs, int firstLane, in IntegerInput input, Vector128<float> result, Vector128<float> origin, bool add)
    {
        float* aScales = input.Scales + firstLane, aSums = input.Sums + firstLane;
        int* aZeros = input.Zeros + firstLane;
        for (; runs > 0; runs -= Runs)
        {
            Vector512<float> s01 = Avx512F.LoadVector512(scales), s23 = Avx512F.LoadVector512(scales + 16);
            Vector128<float> sum = Chain(Column(products, aZeros), Low(s01, s23) * Avx512F.LoadVector512(aScales), Vector128<float>.Zero, runs);
            if (runs > 4) sum = Chain(Column(products + (16 * Rows), aZeros + 16), High(s01, s23) * Avx512F.LoadVector512(aScales + 16), sum, runs - 4);
            result = add ? result + sum : sum;
            add = true;
            if (TFormat.HasOrigins)
            {
                Vector512<float> o01 = Avx512F.LoadVector512(origins), o23 = Avx512F.LoadVector512(origins + 16);
                origin = Chain(Avx512F.LoadVector512(aSums), Low(o01, o23), origin, runs);
                if (runs > 4) origin = Chain(Avx512F.LoadVector512(aSums + 16), High(o01, o23), origin, runs - 4);
            }

            products += 2 * 16 * Rows;
            scales += Runs * Rows;
            origins += Runs * Rows;
            aScales += Runs * Rows;
            aSums += Runs * Rows;
            aZeros += Runs * Rows;
        }

        return (result, origin);
    }

    // Of four rows' eight values those of the first four runs: lane i of 128 bits has run i of each row.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Low(Vector512<float> rows01, Vector512<float> rows23) =>
        Avx512F.PermuteVar16x32x2(rows01, Vector512.Create(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27), rows23);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> High(Vector512<float> rows01, Vector512<float> rows23) =>
        Avx512F.PermuteVar16x32x2(rows01, Vector512.Create(4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30, 7, 15, 23, 31), rows23);

    // The sums of products of four runs of four rows, in the same order.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Column(int* products, int* aZeros)
    {
        Vector512<int> p0 = Avx512F.LoadVector512(products), p1 = Avx512F.LoadVector512(products + 16), p2 = Avx512F.LoadVector512(products + 32), p3 = Avx512F.LoadVector512(products + 48);
        Vector512<long> q0 = Avx512F.Add(Avx512F.UnpackLow(p0, p1), Avx512F.UnpackHigh(p0, p1)).AsInt64();
        Vector512<long> q1 = Avx512F.Add(Avx512F.UnpackLow(p2, p3), Avx512F.UnpackHigh(p2, p3)).AsInt64();
        Vector512<int> sums = Avx512F.Add(Avx512F.UnpackLow(q0, q1).AsInt32(), Avx512F.UnpackHigh(q0, q1).AsInt32());
        if (TProducts.Zero != 0) sums = Avx512F.Subtract(sums, Avx512F.LoadVector512(aZeros));
        return Avx512F.ConvertToVector512Single(sums);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> Chain(Vector512<float> x, Vector512<float> y, Vector128<float> sum, int runs)
    {
        sum = Fma.MultiplyAdd(x.GetLower().GetLower(), y.GetLower().GetLower(), sum);
        if (runs > 1) sum = Fma.MultiplyAdd(x.GetLower().GetUpper(), y.GetLower().GetUpper(), sum);
        if (runs > 2) sum = Fma.MultiplyAdd(x.GetUpper().GetLower(), y.GetUpper().GetLower(), sum);
        return runs > 3 ? Fma.MultiplyAdd(x.GetUpper().GetUpper(), y.GetUpper().GetUpper(), sum) : sum;
    }
}
