using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// The innermost loops of a product of 16-bit integers under one scale for each 32 values on both sides. The sum of 32 products is exact, and the sums are
/// added in ascending depth by fused multiply-adds: every width gives the same bits, in a tile as in a row.
/// </summary>
internal unsafe interface IIntegerKernel
{
    static abstract string Name { get; }

    /// <summary>Rows of one tile.</summary>
    static abstract int RowTile { get; }

    /// <summary><see cref="RowTile"/> rows by one panel, over <paramref name="scaleCount"/> runs of 32 values, at most <see cref="IntegerPanel.ScalesPerBlock"/>.</summary>
    /// <param name="a">Row r starts at <c>r * IntegerPanel.RowStride</c>; pairs of neighbouring depth.</param>
    /// <param name="aScales">Row r starts at <c>r * IntegerPanel.ScalesPerBlock</c>.</param>
    /// <param name="b">A panel's block: for each pair of depth 32 channels, two integers each.</param>
    /// <param name="bScales">For each run of 32 values 32 channels.</param>
    static abstract void Tile(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, long cStride, bool accumulate);

    /// <summary>One row by one panel: the same sums as <see cref="Tile"/>.</summary>
    static abstract void Row(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, bool accumulate);
}

/// <summary>Sizes that packed integers and kernels share.</summary>
internal static class IntegerPanel
{
    public const int ScalesPerBlock = IntegerForm.RunsPerBlock;

    /// <summary>Shorts from row to row of packed activations, a constant for the same reason as <see cref="MatrixProduct.PackedStride"/>.</summary>
    public const int RowStride = MatrixProduct.DepthBlock + 32;

    /// <summary>Largest magnitude of an activation's code.</summary>
    public const int LargestInput = 16383;
}

/// <summary>The form that the vector kernels equal.</summary>
internal readonly unsafe struct IntegerKernelScalar : IIntegerKernel
{
    public static string Name => "scalar";

    public static int RowTile => 4;

    public static void Tile(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, long cStride, bool accumulate)
    {
        for (int row = 0; row < RowTile; row++)
        {
            Row(a + (row * IntegerPanel.RowStride), aScales + (row * IntegerPanel.ScalesPerBlock), b, bScales, scaleCount, c + (row * cStride), accumulate);
        }
    }

    public static void Row(short* a, float* aScales, short* b, float* bScales, int scaleCount, float* c, bool accumulate)
    {
        const int Width = MatrixProduct.PanelWidth, Pairs = IntegerForm.ScaleLength / 2;
        for (int column = 0; column < Width; column++)
        {
            float sum = 0;
            for (int run = 0; run < scaleCount; run++)
            {
                int products = 0;
                for (int pair = run * Pairs; pair < (run + 1) * Pairs; pair++)
                {
                    short* channel = b + (((pair * Width) + column) * 2);
                    products += (a[2 * pair] * channel[0]) + (a[(2 * pair) + 1] * channel[1]);
                }

                sum = MathF.FusedMultiplyAdd(products, aScales[run] * bScales[(run * Width) + column], sum);
            }

            c[column] = accumulate ? c[column] + sum : sum;
        }
    }
}
