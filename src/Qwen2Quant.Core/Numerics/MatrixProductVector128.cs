using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Tiles of 6 x 8, four for each panel; multiply and add are fused where the machine does so.</summary>
internal readonly unsafe struct MatrixProductVector128 : IMatrixProductKernel
{
    private const int S = MatrixProduct.PackedStride;

    public static string Name => "vector128";

    public static int RowTile => 6;

    public static void Tile(float* a, float* b, int depth, float* c, long cStride, bool accumulate)
    {
        for (int column = 0; column < MatrixProduct.PanelWidth; column += 8) Part(a, b + column, depth, c + column, cStride, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Part(float* a, float* b, int depth, float* c, long cStride, bool accumulate)
    {
        Vector128<float> c0x = Vector128<float>.Zero, c0y = Vector128<float>.Zero;
        Vector128<float> c1x = Vector128<float>.Zero, c1y = Vector128<float>.Zero;
        Vector128<float> c2x = Vector128<float>.Zero, c2y = Vector128<float>.Zero;
        Vector128<float> c3x = Vector128<float>.Zero, c3y = Vector128<float>.Zero;
        Vector128<float> c4x = Vector128<float>.Zero, c4y = Vector128<float>.Zero;
        Vector128<float> c5x = Vector128<float>.Zero, c5y = Vector128<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector128<float> bx = Vector128.Load(b);
            Vector128<float> by = Vector128.Load(b + 4);
            Vector128<float> a0 = Vector128.Create(*a);
            c0x = Vector128.MultiplyAddEstimate(a0, bx, c0x);
            c0y = Vector128.MultiplyAddEstimate(a0, by, c0y);
            Vector128<float> a1 = Vector128.Create(a[S]);
            c1x = Vector128.MultiplyAddEstimate(a1, bx, c1x);
            c1y = Vector128.MultiplyAddEstimate(a1, by, c1y);
            Vector128<float> a2 = Vector128.Create(a[2 * S]);
            c2x = Vector128.MultiplyAddEstimate(a2, bx, c2x);
            c2y = Vector128.MultiplyAddEstimate(a2, by, c2y);
            Vector128<float> a3 = Vector128.Create(a[3 * S]);
            c3x = Vector128.MultiplyAddEstimate(a3, bx, c3x);
            c3y = Vector128.MultiplyAddEstimate(a3, by, c3y);
            Vector128<float> a4 = Vector128.Create(a[4 * S]);
            c4x = Vector128.MultiplyAddEstimate(a4, bx, c4x);
            c4y = Vector128.MultiplyAddEstimate(a4, by, c4y);
            Vector128<float> a5 = Vector128.Create(a[5 * S]);
            c5x = Vector128.MultiplyAddEstimate(a5, bx, c5x);
            c5y = Vector128.MultiplyAddEstimate(a5, by, c5y);
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
        for (int column = 0; column < MatrixProduct.PanelWidth; column += 16) RowPart(a, b + column, depth, c + column, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void RowPart(float* a, float* b, int depth, float* c, bool accumulate)
    {
        Vector128<float> s0 = Vector128<float>.Zero, s1 = Vector128<float>.Zero, s2 = Vector128<float>.Zero, s3 = Vector128<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector128<float> value = Vector128.Create(a[k]);
            s0 = Vector128.MultiplyAddEstimate(value, Vector128.Load(b), s0);
            s1 = Vector128.MultiplyAddEstimate(value, Vector128.Load(b + 4), s1);
            s2 = Vector128.MultiplyAddEstimate(value, Vector128.Load(b + 8), s2);
            s3 = Vector128.MultiplyAddEstimate(value, Vector128.Load(b + 12), s3);
            b += MatrixProduct.PanelWidth;
        }

        Store(c, s0, s1, accumulate);
        Store(c + 8, s2, s3, accumulate);
    }

    private static void Store(float* c, Vector128<float> x, Vector128<float> y, bool accumulate)
    {
        if (accumulate)
        {
            x = Vector128.Load(c) + x;
            y = Vector128.Load(c + 4) + y;
        }

        x.Store(c);
        y.Store(c + 4);
    }
}
