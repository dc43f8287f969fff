using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// The product of <see cref="MatrixProduct"/> for few rows, such as the heads of one token that share a key head: a tile of 8 rows instead of 12,
/// without packing, with the same bits.
/// </summary>
public static unsafe class MatrixProductFewRows
{
    /// <summary>Rows at most.</summary>
    public const int MaxRows = 8;

    /// <summary>As <see cref="MatrixProduct.MultiplyPanels(float*, long, int, int, float*, long, int, float*, long, bool)"/>, where what does not suit the tile goes.</summary>
    public static void MultiplyPanels(
        float* a, long aStride, int rowCount, int depth, float* panels, long panelStride, int columnCount, float* c, long cStride, bool accumulate)
    {
        // One and two rows have a kernel there, and so has no depth.
        if (Simd.Level < SimdLevel.Avx512 || rowCount is < 3 or > MaxRows || depth == 0)
        {
            MatrixProduct.MultiplyPanels(a, aStride, rowCount, depth, panels, panelStride, columnCount, c, cStride, accumulate);
            return;
        }

        float* sums = stackalloc float[MaxRows * MatrixProduct.PanelWidth];
        for (int column = 0; column < columnCount; column += MatrixProduct.PanelWidth)
        {
            float* panel = panels + (column / MatrixProduct.PanelWidth * panelStride);
            int columns = Math.Min(MatrixProduct.PanelWidth, columnCount - column);
            for (int k = 0; k < depth; k += MatrixProduct.DepthBlock)
            {
                Tile(a + k, aStride, rowCount, panel + ((long)k * MatrixProduct.PanelWidth), Math.Min(MatrixProduct.DepthBlock, depth - k), sums);
                bool add = accumulate || k > 0;
                for (int row = 0; row < rowCount; row++)
                {
                    float* from = sums + (row * MatrixProduct.PanelWidth);
                    float* to = c + (row * cStride) + column;
                    for (int i = 0; i < columns; i++) to[i] = add ? to[i] + from[i] : from[i];
                }
            }
        }
    }

    // Rows beyond the last are the last again.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile(float* a, long aStride, int rowCount, float* b, int depth, float* sums)
    {
        float* a0 = a, a1 = Row(1), a2 = Row(2), a3 = Row(3), a4 = Row(4), a5 = Row(5), a6 = Row(6), a7 = Row(7);
        Vector512<float> c0x = Vector512<float>.Zero, c0y = Vector512<float>.Zero;
        Vector512<float> c1x = Vector512<float>.Zero, c1y = Vector512<float>.Zero;
        Vector512<float> c2x = Vector512<float>.Zero, c2y = Vector512<float>.Zero;
        Vector512<float> c3x = Vector512<float>.Zero, c3y = Vector512<float>.Zero;
        Vector512<float> c4x = Vector512<float>.Zero, c4y = Vector512<float>.Zero;
        Vector512<float> c5x = Vector512<float>.Zero, c5y = Vector512<float>.Zero;
        Vector512<float> c6x = Vector512<float>.Zero, c6y = Vector512<float>.Zero;
        Vector512<float> c7x = Vector512<float>.Zero, c7y = Vector512<float>.Zero;
        for (int k = 0; k < depth; k++)
        {
            Vector512<float> bx = Avx512F.LoadVector512(b);
            Vector512<float> by = Avx512F.LoadVector512(b + 16);
            Vector512<float> v0 = Vector512.Create(a0[k]);
            c0x = Avx512F.FusedMultiplyAdd(v0, bx, c0x);
            c0y = Avx512F.FusedMultiplyAdd(v0, by, c0y);
            Vector512<float> v1 = Vector512.Create(a1[k]);
            c1x = Avx512F.FusedMultiplyAdd(v1, bx, c1x);
            c1y = Avx512F.FusedMultiplyAdd(v1, by, c1y);
            Vector512<float> v2 = Vector512.Create(a2[k]);
            c2x = Avx512F.FusedMultiplyAdd(v2, bx, c2x);
            c2y = Avx512F.FusedMultiplyAdd(v2, by, c2y);
            Vector512<float> v3 = Vector512.Create(a3[k]);
            c3x = Avx512F.FusedMultiplyAdd(v3, bx, c3x);
            c3y = Avx512F.FusedMultiplyAdd(v3, by, c3y);
            Vector512<float> v4 = Vector512.Create(a4[k]);
            c4x = Avx512F.FusedMultiplyAdd(v4, bx, c4x);
            c4y = Avx512F.FusedMultiplyAdd(v4, by, c4y);
            Vector512<float> v5 = Vector512.Create(a5[k]);
            c5x = Avx512F.FusedMultiplyAdd(v5, bx, c5x);
            c5y = Avx512F.FusedMultiplyAdd(v5, by, c5y);
            Vector512<float> v6 = Vector512.Create(a6[k]);
            c6x = Avx512F.FusedMultiplyAdd(v6, bx, c6x);
            c6y = Avx512F.FusedMultiplyAdd(v6, by, c6y);
            Vector512<float> v7 = Vector512.Create(a7[k]);
            c7x = Avx512F.FusedMultiplyAdd(v7, bx, c7x);
            c7y = Avx512F.FusedMultiplyAdd(v7, by, c7y);
            b += MatrixProduct.PanelWidth;
        }

        c0x.Store(sums + 0);
        c0y.Store(sums + 16);
        c1x.Store(sums + 32);
        c1y.Store(sums + 48);
        c2x.Store(sums + 64);
        c2y.Store(sums + 80);
        c3x.Store(sums + 96);
        c3y.Store(sums + 112);
        c4x.Store(sums + 128);
        c4y.Store(sums + 144);
        c5x.Store(sums + 160);
        c5y.Store(sums + 176);
        c6x.Store(sums + 192);
        c6y.Store(sums + 208);
        c7x.Store(sums + 224);
        c7y.Store(sums + 240);

        float* Row(int row) => a + (Math.Min(row, rowCount - 1) * aStride);
    }
}
