using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Tiles of 12 x 32: 24 registers of sums, flushed to floats after each run of 32 values.</summary>
internal readonly unsafe struct IntegerKernelAvx512 : IIntegerKernel
{
    private const int S = IntegerPanel.RowStride / 2;
    private const int Width = MatrixProduct.PanelWidth;
    private const int Pairs = IntegerForm.ScaleLength / 2;

    public static string Name => "avx512";

    public static int RowTile => 12;

    [SkipLocalsInit]
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Tile(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, long cStride, bool accumulate)
    {
        float* sums = stackalloc float[(12 * Width) + 16];
        sums = (float*)(((nuint)sums + 63) & ~(nuint)63);
        int* pairs = (int*)a;
        for (int run = 0; run < scaleCount; run++)
        {
            Vector512<int> c0x = Vector512<int>.Zero, c0y = Vector512<int>.Zero;
            Vector512<int> c1x = Vector512<int>.Zero, c1y = Vector512<int>.Zero;
            Vector512<int> c2x = Vector512<int>.Zero, c2y = Vector512<int>.Zero;
            Vector512<int> c3x = Vector512<int>.Zero, c3y = Vector512<int>.Zero;
            Vector512<int> c4x = Vector512<int>.Zero, c4y = Vector512<int>.Zero;
            Vector512<int> c5x = Vector512<int>.Zero, c5y = Vector512<int>.Zero;
            Vector512<int> c6x = Vector512<int>.Zero, c6y = Vector512<int>.Zero;
            Vector512<int> c7x = Vector512<int>.Zero, c7y = Vector512<int>.Zero;
            Vector512<int> c8x = Vector512<int>.Zero, c8y = Vector512<int>.Zero;
            Vector512<int> c9x = Vector512<int>.Zero, c9y = Vector512<int>.Zero;
            Vector512<int> c10x = Vector512<int>.Zero, c10y = Vector512<int>.Zero;
            Vector512<int> c11x = Vector512<int>.Zero, c11y = Vector512<int>.Zero;
            for (int pair = 0; pair < Pairs; pair++)
            {
                Vector512<short> bx = Avx512BW.LoadVector512(b);
                Vector512<short> by = Avx512BW.LoadVector512(b + 32);
                Vector512<short> a0 = Vector512.Create(*pairs).AsInt16();
                c0x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a0, bx), c0x);
                c0y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a0, by), c0y);
                Vector512<short> a1 = Vector512.Create(pairs[S]).AsInt16();
                c1x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a1, bx), c1x);
                c1y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a1, by), c1y);
                Vector512<short> a2 = Vector512.Create(pairs[2 * S]).AsInt16();
                c2x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a2, bx), c2x);
                c2y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a2, by), c2y);
                Vector512<short> a3 = Vector512.Create(pairs[3 * S]).AsInt16();
                c3x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a3, bx), c3x);
                c3y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a3, by), c3y);
                Vector512<short> a4 = Vector512.Create(pairs[4 * S]).AsInt16();
                c4x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a4, bx), c4x);
                c4y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a4, by), c4y);
                Vector512<short> a5 = Vector512.Create(pairs[5 * S]).AsInt16();
                c5x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a5, bx), c5x);
                c5y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a5, by), c5y);
                Vector512<short> a6 = Vector512.Create(pairs[6 * S]).AsInt16();
                c6x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a6, bx), c6x);
                c6y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a6, by), c6y);
                Vector512<short> a7 = Vector512.Create(pairs[7 * S]).AsInt16();
                c7x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a7, bx), c7x);
                c7y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a7, by), c7y);
                Vector512<short> a8 = Vector512.Create(pairs[8 * S]).AsInt16();
                c8x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a8, bx), c8x);
                c8y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a8, by), c8y);
                Vector512<short> a9 = Vector512.Create(pairs[9 * S]).AsInt16();
                c9x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a9, bx), c9x);
                c9y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a9, by), c9y);
                Vector512<short> a10 = Vector512.Create(pairs[10 * S]).AsInt16();
                c10x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a10, bx), c10x);
                c10y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a10, by), c10y);
                Vector512<short> a11 = Vector512.Create(pairs[11 * S]).AsInt16();
                c11x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a11, bx), c11x);
                c11y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(a11, by), c11y);
                pairs++;
                b += 2 * Width;
            }

            Vector512<float> scaleX = Avx512F.LoadVector512(bScales);
            Vector512<float> scaleY = Avx512F.LoadVector512(bScales + 16);
            bool add = run > 0;
            Flush(sums, c0x, c0y, aScales[run], scaleX, scaleY, add);
            Flush(sums + Width, c1x, c1y, aScales[run + (1 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (2 * Width), c2x, c2y, aScales[run + (2 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (3 * Width), c3x, c3y, aScales[run + (3 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (4 * Width), c4x, c4y, aScales[run + (4 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (5 * Width), c5x, c5y, aScales[run + (5 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (6 * Width), c6x, c6y, aScales[run + (6 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (7 * Width), c7x, c7y, aScales[run + (7 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (8 * Width), c8x, c8y, aScales[run + (8 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (9 * Width), c9x, c9y, aScales[run + (9 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (10 * Width), c10x, c10y, aScales[run + (10 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (11 * Width), c11x, c11y, aScales[run + (11 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            bScales += Width;
        }

        for (int row = 0; row < 12; row++) Store(c + (row * cStride), Avx512F.LoadVector512(sums + (row * Width)), Avx512F.LoadVector512(sums + (row * Width) + 16), accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, bool accumulate)
    {
        Vector512<float> sumX = Vector512<float>.Zero, sumY = Vector512<float>.Zero;
        int* pairs = (int*)a;
        for (int run = 0; run < scaleCount; run++)
        {
            Vector512<int> x = Vector512<int>.Zero, y = Vector512<int>.Zero;
            for (int pair = 0; pair < Pairs; pair++)
            {
                Vector512<short> value = Vector512.Create(pairs[pair]).AsInt16();
                x = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(value, Avx512BW.LoadVector512(b)), x);
                y = Avx512F.Add(Avx512BW.MultiplyAddAdjacent(value, Avx512BW.LoadVector512(b + 32)), y);
                b += 2 * Width;
            }

            pairs += Pairs;
            Vector512<float> scale = Vector512.Create(aScales[run]);
            sumX = Avx512F.FusedMultiplyAdd(Avx512F.ConvertToVector512Single(x), Avx512F.Multiply(scale, Avx512F.LoadVector512(bScales)), sumX);
            sumY = Avx512F.FusedMultiplyAdd(Avx512F.ConvertToVector512Single(y), Avx512F.Multiply(scale, Avx512F.LoadVector512(bScales + 16)), sumY);
            bScales += Width;
        }

        Store(c, sumX, sumY, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Flush(float* sums, Vector512<int> x, Vector512<int> y, float aScale, Vector512<float> scaleX, Vector512<float> scaleY, bool add)
    {
        Vector512<float> scale = Vector512.Create(aScale);
        Vector512<float> sumX = add ? Avx512F.LoadVector512(sums) : Vector512<float>.Zero;
        Vector512<float> sumY = add ? Avx512F.LoadVector512(sums + 16) : Vector512<float>.Zero;
        Avx512F.Store(sums, Avx512F.FusedMultiplyAdd(Avx512F.ConvertToVector512Single(x), Avx512F.Multiply(scale, scaleX), sumX));
        Avx512F.Store(sums + 16, Avx512F.FusedMultiplyAdd(Avx512F.ConvertToVector512Single(y), Avx512F.Multiply(scale, scaleY), sumY));
    }

    private static void Store(float* c, Vector512<float> x, Vector512<float> y, bool accumulate)
    {
        if (accumulate)
        {
            x = Avx512F.Add(Avx512F.LoadVector512(c), x);
            y = Avx512F.Add(Avx512F.LoadVector512(c + 16), y);
        }

        Avx512F.Store(c, x);
        Avx512F.Store(c + 16, y);
    }
}
