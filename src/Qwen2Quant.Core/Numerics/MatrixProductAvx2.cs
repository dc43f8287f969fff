using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Tiles of 6 x 16, two for each panel, in 12 of the 16 registers.</summary>
internal readonly unsafe struct MatrixProductAvx2 : IMatrixProductKernel
{
    private const int S = MatrixProduct.PackedStride;

    public static string Name => "avx2";

    public static int RowTile => 6;

    public static void Tile(float* a, float* b, int depth, float* c, long cStride, bool accumulate)
    {
        for (int column = 0; column < MatrixProduct.PanelWidth; column += 16) Part(a, b + column, depth, c + column, cStride, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Part(float* a, float* b, int depth, float* c, long cStride, bool accumulate)
    {
        Vector256<float> c0x = Vector256<float>.Zero, c0y = Vector256<float>.Zero;
        Vector256<float> c1x = Vector256<float>.Zero, c1y = Vector256<float>.Zero;
        Vector256<float> c2x = Vector256<float>.Zero, c2y = Vector256<float>.Zero;
        Vector256<float> c3x = Vector256<float>.Zero, c3y = Vector256<float>.Zero;
        Vector256<float> c4x = Vector256<float>.Zero, c4y = Vector256<float>.Zero;
        Vector256<float> c5x = Vector256<float>.Zero, c5y = Vector256<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector256<float> bx = Avx.LoadVector256(b);
            Vector256<float> by = Avx.LoadVector256(b + 8);
            Vector256<float> a0 = Vector256.Create(*a);
            c0x = Fma.MultiplyAdd(a0, bx, c0x);
            c0y = Fma.MultiplyAdd(a0, by, c0y);
            Vector256<float> a1 = Vector256.Create(a[S]);
            c1x = Fma.MultiplyAdd(a1, bx, c1x);
            c1y = Fma.MultiplyAdd(a1, by, c1y);
            Vector256<float> a2 = Vector256.Create(a[2 * S]);
            c2x = Fma.MultiplyAdd(a2, bx, c2x);
            c2y = Fma.MultiplyAdd(a2, by, c2y);
            Vector256<float> a3 = Vector256.Create(a[3 * S]);
            c3x = Fma.MultiplyAdd(a3, bx, c3x);
            c3y = Fma.MultiplyAdd(a3, by, c3y);
            Vector256<float> a4 = Vector256.Create(a[4 * S]);
            c4x = Fma.MultiplyAdd(a4, bx, c4x);
            c4y = Fma.MultiplyAdd(a4, by, c4y);
            Vector256<float> a5 = Vector256.Create(a[5 * S]);
            c5x = Fma.MultiplyAdd(a5, bx, c5x);
            c5y = Fma.MultiplyAdd(a5, by, c5y);
            a++;
            b += MatrixProduct.PanelWidth;
        }

        Store(c, c0x, c0y, accumulate);
        Store(c + cStride, c1x, c1y, accumulate);
        Store(c + (2 * cStride), c2x, c2y, accumulate);
        Store(c + (3 * cStride), c3x, c3y, accumulate);
        Store(c + (4 * cStride), c4x, c4y, accumulate);
        Store(c + (5 * cStride), c5x, c5y, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row(float* a, float* b, int depth, float* c, bool accumulate)
    {
        Vector256<float> s0 = Vector256<float>.Zero, s1 = Vector256<float>.Zero, s2 = Vector256<float>.Zero, s3 = Vector256<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector256<float> value = Vector256.Create(a[k]);
            s0 = Fma.MultiplyAdd(value, Avx.LoadVector256(b), s0);
            s1 = Fma.MultiplyAdd(value, Avx.LoadVector256(b + 8), s1);
            s2 = Fma.MultiplyAdd(value, Avx.LoadVector256(b + 16), s2);
            s3 = Fma.MultiplyAdd(value, Avx.LoadVector256(b + 24), s3);
            b += MatrixProduct.PanelWidth;
        }

        Store(c, s0, s1, accumulate);
        Store(c + 16, s2, s3, accumulate);
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
