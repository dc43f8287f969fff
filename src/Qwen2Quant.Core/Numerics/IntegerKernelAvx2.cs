using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Tiles of 6 x 16, two for each panel: 12 registers of sums, flushed to floats after each run of 32 values.</summary>
internal readonly unsafe struct IntegerKernelAvx2 : IIntegerKernel
{
    private const int S = IntegerPanel.RowStride / 2;
    private const int Width = MatrixProduct.PanelWidth;
    private const int Pairs = IntegerForm.ScaleLength / 2;

    public static string Name => "avx2";

    public static int RowTile => 6;

    public static void Tile(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, long cStride, bool accumulate)
    {
        for (int column = 0; column < Width; column += 16) Part(a, aScales, b + (2 * column), bScales + column, scaleCount, c + column, cStride, accumulate);
    }

    public static void Row(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, bool accumulate)
    {
        for (int column = 0; column < Width; column += 16) RowPart(a, aScales, b + (2 * column), bScales + column, scaleCount, c + column, accumulate);
    }

    [SkipLocalsInit]
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Part(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, long cStride, bool accumulate)
    {
        float* sums = stackalloc float[6 * 16];
        int* pairs = (int*)a;
        for (int run = 0; run < scaleCount; run++)
        {
            Vector256<int> c0x = Vector256<int>.Zero, c0y = Vector256<int>.Zero;
            Vector256<int> c1x = Vector256<int>.Zero, c1y = Vector256<int>.Zero;
            Vector256<int> c2x = Vector256<int>.Zero, c2y = Vector256<int>.Zero;
            Vector256<int> c3x = Vector256<int>.Zero, c3y = Vector256<int>.Zero;
            Vector256<int> c4x = Vector256<int>.Zero, c4y = Vector256<int>.Zero;
            Vector256<int> c5x = Vector256<int>.Zero, c5y = Vector256<int>.Zero;
            for (int pair = 0; pair < Pairs; pair++)
            {
                Vector256<short> bx = Avx.LoadVector256(b);
                Vector256<short> by = Avx.LoadVector256(b + 16);
                Vector256<short> a0 = Vector256.Create(*pairs).AsInt16();
                c0x = Avx2.Add(Avx2.MultiplyAddAdjacent(a0, bx), c0x);
                c0y = Avx2.Add(Avx2.MultiplyAddAdjacent(a0, by), c0y);
                Vector256<short> a1 = Vector256.Create(pairs[S]).AsInt16();
                c1x = Avx2.Add(Avx2.MultiplyAddAdjacent(a1, bx), c1x);
                c1y = Avx2.Add(Avx2.MultiplyAddAdjacent(a1, by), c1y);
                Vector256<short> a2 = Vector256.Create(pairs[2 * S]).AsInt16();
                c2x = Avx2.Add(Avx2.MultiplyAddAdjacent(a2, bx), c2x);
                c2y = Avx2.Add(Avx2.MultiplyAddAdjacent(a2, by), c2y);
                Vector256<short> a3 = Vector256.Create(pairs[3 * S]).AsInt16();
                c3x = Avx2.Add(Avx2.MultiplyAddAdjacent(a3, bx), c3x);
                c3y = Avx2.Add(Avx2.MultiplyAddAdjacent(a3, by), c3y);
                Vector256<short> a4 = Vector256.Create(pairs[4 * S]).AsInt16();
                c4x = Avx2.Add(Avx2.MultiplyAddAdjacent(a4, bx), c4x);
                c4y = Avx2.Add(Avx2.MultiplyAddAdjacent(a4, by), c4y);
                Vector256<short> a5 = Vector256.Create(pairs[5 * S]).AsInt16();
                c5x = Avx2.Add(Avx2.MultiplyAddAdjacent(a5, bx), c5x);
                c5y = Avx2.Add(Avx2.MultiplyAddAdjacent(a5, by), c5y);
                pairs++;
                b += 2 * Width;
            }

            Vector256<float> scaleX = Avx.LoadVector256(bScales);
            Vector256<float> scaleY = Avx.LoadVector256(bScales + 8);
            bool add = run > 0;
            Flush(sums, c0x, c0y, aScales[run], scaleX, scaleY, add);
            Flush(sums + 16, c1x, c1y, aScales[run + (1 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (2 * 16), c2x, c2y, aScales[run + (2 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (3 * 16), c3x, c3y, aScales[run + (3 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (4 * 16), c4x, c4y, aScales[run + (4 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            Flush(sums + (5 * 16), c5x, c5y, aScales[run + (5 * IntegerPanel.ScalesPerBlock)], scaleX, scaleY, add);
            bScales += Width;
        }

        for (int row = 0; row < 6; row++) Store(c + (row * cStride), Avx.LoadVector256(sums + (row * 16)), Avx.LoadVector256(sums + (row * 16) + 8), accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void RowPart(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, bool accumulate)
    {
        Vector256<float> sumX = Vector256<float>.Zero, sumY = Vector256<float>.Zero;
        int* pairs = (int*)a;
        for (int run = 0; run < scaleCount; run++)
        {
            Vector256<int> x = Vector256<int>.Zero, y = Vector256<int>.Zero;
            for (int pair = 0; pair < Pairs; pair++)
            {
                Vector256<short> value = Vector256.Create(pairs[pair]).AsInt16();
                x = Avx2.Add(Avx2.MultiplyAddAdjacent(value, Avx.LoadVector256(b)), x);
                y = Avx2.Add(Avx2.MultiplyAddAdjacent(value, Avx.LoadVector256(b + 16)), y);
                b += 2 * Width;
            }

            pairs += Pairs;
            Vector256<float> scale = Vector256.Create(aScales[run]);
            sumX = Fma.MultiplyAdd(Avx.ConvertToVector256Single(x), Avx.Multiply(scale, Avx.LoadVector256(bScales)), sumX);
            sumY = Fma.MultiplyAdd(Avx.ConvertToVector256Single(y), Avx.Multiply(scale, Avx.LoadVector256(bScales + 8)), sumY);
            bScales += Width;
        }

        Store(c, sumX, sumY, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Flush(float* sums, Vector256<int> x, Vector256<int> y, float aScale, Vector256<float> scaleX, Vector256<float> scaleY, bool add)
    {
        Vector256<float> scale = Vector256.Create(aScale);
        Vector256<float> sumX = add ? Avx.LoadVector256(sums) : Vector256<float>.Zero;
        Vector256<float> sumY = add ? Avx.LoadVector256(sums + 8) : Vector256<float>.Zero;
        Avx.Store(sums, Fma.MultiplyAdd(Avx.ConvertToVector256Single(x), Avx.Multiply(scale, scaleX), sumX));
        Avx.Store(sums + 8, Fma.MultiplyAdd(Avx.ConvertToVector256Single(y), Avx.Multiply(scale, scaleY), sumY));
    }

    private static void Store(float* c, Vector256<float> x, Vector256<float> y, bool accumulate)
    {
        if (accumulate)
        {
            x = Avx.Add(Avx.LoadVector256(c), x);
            y = Avx.Add(Avx.LoadVector256(c + 8), y);
        }

        Avx.Store(c, x);
        Avx.Store(c + 8, y);
    }
}
