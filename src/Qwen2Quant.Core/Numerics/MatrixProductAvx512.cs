using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Tiles of 12 x 32 in 24 of the 32 registers.</summary>
internal readonly unsafe struct MatrixProductAvx512 : IMatrixProductKernel
{
    private const int S = MatrixProduct.PackedStride;

    public static string Name => "avx512";

    public static int RowTile => 12;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Tile(float* a, float* b, int depth, float* c, long cStride, bool accumulate)
    {
        Vector512<float> c0x = Vector512<float>.Zero, c0y = Vector512<float>.Zero;
        Vector512<float> c1x = Vector512<float>.Zero, c1y = Vector512<float>.Zero;
        Vector512<float> c2x = Vector512<float>.Zero, c2y = Vector512<float>.Zero;
        Vector512<float> c3x = Vector512<float>.Zero, c3y = Vector512<float>.Zero;
        Vector512<float> c4x = Vector512<float>.Zero, c4y = Vector512<float>.Zero;
        Vector512<float> c5x = Vector512<float>.Zero, c5y = Vector512<float>.Zero;
        Vector512<float> c6x = Vector512<float>.Zero, c6y = Vector512<float>.Zero;
        Vector512<float> c7x = Vector512<float>.Zero, c7y = Vector512<float>.Zero;
        Vector512<float> c8x = Vector512<float>.Zero, c8y = Vector512<float>.Zero;
        Vector512<float> c9x = Vector512<float>.Zero, c9y = Vector512<float>.Zero;
        Vector512<float> c10x = Vector512<float>.Zero, c10y = Vector512<float>.Zero;
        Vector512<float> c11x = Vector512<float>.Zero, c11y = Vector512<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector512<float> bx = Avx512F.LoadVector512(b);
            Vector512<float> by = Avx512F.LoadVector512(b + 16);
            Vector512<float> a0 = Vector512.Create(*a);
            c0x = Avx512F.FusedMultiplyAdd(a0, bx, c0x);
            c0y = Avx512F.FusedMultiplyAdd(a0, by, c0y);
            Vector512<float> a1 = Vector512.Create(a[S]);
            c1x = Avx512F.FusedMultiplyAdd(a1, bx, c1x);
            c1y = Avx512F.FusedMultiplyAdd(a1, by, c1y);
            Vector512<float> a2 = Vector512.Create(a[2 * S]);
            c2x = Avx512F.FusedMultiplyAdd(a2, bx, c2x);
            c2y = Avx512F.FusedMultiplyAdd(a2, by, c2y);
            Vector512<float> a3 = Vector512.Create(a[3 * S]);
            c3x = Avx512F.FusedMultiplyAdd(a3, bx, c3x);
            c3y = Avx512F.FusedMultiplyAdd(a3, by, c3y);
            Vector512<float> a4 = Vector512.Create(a[4 * S]);
            c4x = Avx512F.FusedMultiplyAdd(a4, bx, c4x);
            c4y = Avx512F.FusedMultiplyAdd(a4, by, c4y);
            Vector512<float> a5 = Vector512.Create(a[5 * S]);
            c5x = Avx512F.FusedMultiplyAdd(a5, bx, c5x);
            c5y = Avx512F.FusedMultiplyAdd(a5, by, c5y);
            Vector512<float> a6 = Vector512.Create(a[6 * S]);
            c6x = Avx512F.FusedMultiplyAdd(a6, bx, c6x);
            c6y = Avx512F.FusedMultiplyAdd(a6, by, c6y);
            Vector512<float> a7 = Vector512.Create(a[7 * S]);
            c7x = Avx512F.FusedMultiplyAdd(a7, bx, c7x);
            c7y = Avx512F.FusedMultiplyAdd(a7, by, c7y);
            Vector512<float> a8 = Vector512.Create(a[8 * S]);
            c8x = Avx512F.FusedMultiplyAdd(a8, bx, c8x);
            c8y = Avx512F.FusedMultiplyAdd(a8, by, c8y);
            Vector512<float> a9 = Vector512.Create(a[9 * S]);
            c9x = Avx512F.FusedMultiplyAdd(a9, bx, c9x);
            c9y = Avx512F.FusedMultiplyAdd(a9, by, c9y);
            Vector512<float> a10 = Vector512.Create(a[10 * S]);
            c10x = Avx512F.FusedMultiplyAdd(a10, bx, c10x);
            c10y = Avx512F.FusedMultiplyAdd(a10, by, c10y);
            Vector512<float> a11 = Vector512.Create(a[11 * S]);
            c11x = Avx512F.FusedMultiplyAdd(a11, bx, c11x);
            c11y = Avx512F.FusedMultiplyAdd(a11, by, c11y);
            a++;
            b += MatrixProduct.PanelWidth;
        }

        Store(c, c0x, c0y, accumulate);
        Store(c + cStride, c1x, c1y, accumulate);
        Store(c + (2 * cStride), c2x, c2y, accumulate);
        Store(c + (3 * cStride), c3x, c3y, accumulate);
        Store(c + (4 * cStride), c4x, c4y, accumulate);
        Store(c + (5 * cStride), c5x, c5y, accumulate);
        Store(c + (6 * cStride), c6x, c6y, accumulate);
        Store(c + (7 * cStride), c7x, c7y, accumulate);
        Store(c + (8 * cStride), c8x, c8y, accumulate);
        Store(c + (9 * cStride), c9x, c9y, accumulate);
        Store(c + (10 * cStride), c10x, c10y, accumulate);
        Store(c + (11 * cStride), c11x, c11y, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row(float* a, float* b, int depth, float* c, bool accumulate)
    {
        Vector512<float> s0 = Vector512<float>.Zero, s1 = Vector512<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector512<float> value = Vector512.Create(a[k]);
            s0 = Avx512F.FusedMultiplyAdd(value, Avx512F.LoadVector512(b), s0);
            s1 = Avx512F.FusedMultiplyAdd(value, Avx512F.LoadVector512(b + 16), s1);
            b += MatrixProduct.PanelWidth;
        }

        Store(c, s0, s1, accumulate);
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
