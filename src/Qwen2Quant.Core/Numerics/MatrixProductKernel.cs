namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// The innermost loops of a matrix product at one vector width. Every output is one chain of multiply-adds in ascending depth,
/// so that it does not depend on the tile it is computed in. Kernels are compiled optimized at once: most of a short run would pass before tiering.
/// </summary>
internal unsafe interface IMatrixProductKernel
{
    /// <summary>What people call this width.</summary>
    static abstract string Name { get; }

    /// <summary>Rows of one tile.</summary>
    static abstract int RowTile { get; }

    /// <summary>
    /// <see cref="RowTile"/> rows by one panel. Row r of <paramref name="a"/> starts at r * <see cref="MatrixProduct.PackedStride"/>;
    /// <paramref name="b"/> is a panel from the wanted depth on; <paramref name="accumulate"/> adds to what <paramref name="c"/> holds.
    /// </summary>
    static abstract void Tile(float* a, float* b, int depth, float* c, long cStride, bool accumulate);

    /// <summary>One row by one panel: the same sums as <see cref="Tile"/>.</summary>
    static abstract void Row(float* a, float* b, int depth, float* c, bool accumulate);
}

/// <summary>The form that the vector kernels equal within rounding.</summary>
internal readonly unsafe struct MatrixProductScalar : IMatrixProductKernel
{
    public static string Name => "scalar";

    public static int RowTile => 4;

    public static void Tile(float* a, float* b, int depth, float* c, long cStride, bool accumulate)
    {
        for (int row = 0; row < RowTile; row++) Row(a + (row * MatrixProduct.PackedStride), b, depth, c + (row * cStride), accumulate);
    }

    public static void Row(float* a, float* b, int depth, float* c, bool accumulate)
    {
        float* sums = stackalloc float[MatrixProduct.PanelWidth];
        for (int k = 0; k < depth; k++)
        {
            for (int column = 0; column < MatrixProduct.PanelWidth; column++) sums[column] += a[k] * b[column];
            b += MatrixProduct.PanelWidth;
        }

        for (int column = 0; column < MatrixProduct.PanelWidth; column++) c[column] = accumulate ? c[column] + sums[column] : sums[column];
    }
}
