using System.Globalization;
using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// C = A B^T in single precision, A row-major, B in panels (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication").
/// Each output is summed in ascending depth, blocks of <see cref="DepthBlock"/> at a time: the bits depend on the vector width
/// and on nothing else, neither the number of threads nor the other rows.
/// </summary>
public static unsafe class MatrixProduct
{
    /// <summary>Output channels of one panel of the right operand.</summary>
    public const int PanelWidth = 32;

    /// <summary>Depth of one block: with it a panel takes 32 KiB, two thirds of a first-level cache.</summary>
    public const int DepthBlock = 256;

    // A constant, so that the rows of a tile are one pointer with displacements; 16 floats more than the block keep rows out of one cache set.
    internal const int PackedStride = DepthBlock + 16;

    // Rows packed at a time: 16 tiles of 12, 204 KiB, within a second-level cache.
    private const int RowBlock = 192;

    internal const int LargestRowTile = 12;

    [ThreadStatic]
    private static float[]? _packedRows;

    /// <summary>The kernel that this process multiplies with: its width, and rows by columns of its tile.</summary>
    public static string KernelName => KernelNameAt(Simd.Level);

    /// <summary>
    /// C [rowCount, columns] = (C +) A [rowCount, depth] times the panels, on the threads of <paramref name="team"/>; rows of both lie back to back.
    /// </summary>
    /// <param name="accumulate">Adds to what <paramref name="c"/> holds.</param>
    public static void Multiply(ReadOnlySpan<float> a, int rowCount, MatrixProductPanels b, Span<float> c, WorkerTeam team, bool accumulate = false)
    {
        if (a.Length < (long)rowCount * b.Depth) throw new ArgumentException("too short", nameof(a));
        if (c.Length < (long)rowCount * b.ColumnCount) throw new ArgumentException("too short", nameof(c));
        fixed (float* aFirst = a, cFirst = c) Multiply(aFirst, rowCount, b, cFirst, b.ColumnCount, team, accumulate);
    }

    /// <summary>As the overload with spans, with <paramref name="cStride"/> floats from row to row of <paramref name="c"/>.</summary>
    public static void Multiply(float* a, int rowCount, MatrixProductPanels b, float* c, long cStride, WorkerTeam team, bool accumulate = false) =>
        Multiply(a, rowCount, b, c, cStride, team, accumulate, Simd.Level);

    internal static void Multiply(float* a, int rowCount, MatrixProductPanels b, float* c, long cStride, WorkerTeam team, bool accumulate, SimdLevel level)
    {
        int panelCount = (b.ColumnCount + PanelWidth - 1) / PanelWidth;
        if (rowCount == 0 || panelCount == 0) return;

        int rowChunks = (rowCount + RowBlock - 1) / RowBlock;
        int rowsPerChunk = ((rowCount + rowChunks - 1) / rowChunks + LargestRowTile - 1) / LargestRowTile * LargestRowTile;
        int columnChunks = Math.Clamp(4 * team.ThreadCount / rowChunks, 1, panelCount);
        team.Run(rowChunks * columnChunks, task =>
        {
            int firstRow = task / columnChunks * rowsPerChunk;
            int rows = Math.Min(rowsPerChunk, rowCount - firstRow);
            int firstPanel = (int)((long)(task % columnChunks) * panelCount / columnChunks);
            int endPanel = (int)((long)((task % columnChunks) + 1) * panelCount / columnChunks);
            int firstColumn = firstPanel * PanelWidth;
            if (rows <= 0) return;
            MultiplyPanels(
                a + ((long)firstRow * b.Depth), b.Depth, rows, b.Depth,
                b.Pointer + (firstPanel * b.PanelStride), b.PanelStride, Math.Min(endPanel * PanelWidth, b.ColumnCount) - firstColumn,
                c + (firstRow * cStride) + firstColumn, cStride, accumulate, level);
        });
        GC.KeepAlive(b);
    }

    /// <summary>
    /// The product on the calling thread, with every stride given in floats. The panels hold at least <paramref name="columnCount"/> channels,
    /// rounded up to whole panels, <paramref name="panelStride"/> floats apart.
    /// </summary>
    public static void MultiplyPanels(
        float* a, long aStride, int rowCount, int depth, float* panels, long panelStride, int columnCount, float* c, long cStride, bool accumulate) =>
        MultiplyPanels(a, aStride, rowCount, depth, panels, panelStride, columnCount, c, cStride, accumulate, Simd.Level);

    internal static void MultiplyPanels(
        float* a, long aStride, int rowCount, int depth, float* panels, long panelStride, int columnCount, float* c, long cStride, bool accumulate, SimdLevel level)
    {
        if (depth == 0)
        {
            for (int row = 0; row < rowCount && !accumulate; row++) new Span<float>(c + (row * cStride), columnCount).Clear();
            return;
        }

        Choose(level).Run(a, aStride, rowCount, depth, panels, panelStride, columnCount, c, cStride, accumulate);
    }

    internal static string KernelNameAt(SimdLevel level)
    {
        Kernel kernel = Choose(level);
        return string.Create(CultureInfo.InvariantCulture, $"{kernel.Name} {kernel.RowTile}x{PanelWidth}");
    }

    private static Kernel Choose(SimdLevel level) =>
        level >= SimdLevel.Avx512 ? Kernel.Of<MatrixProductAvx512>()
        : level >= SimdLevel.Avx2 ? Kernel.Of<MatrixProductAvx2>()
        : level >= SimdLevel.Vector128 ? Kernel.Of<MatrixProductVector128>()
        : Kernel.Of<MatrixProductScalar>();

    private static void Run<TKernel>(
        float* a, long aStride, int rowCount, int depth, float* panels, long panelStride, int columnCount, float* c, long cStride, bool accumulate)
        where TKernel : struct, IMatrixProductKernel
    {
        int tiledRows = rowCount < 3 ? 0 : rowCount;
        for (int row = 0; row < tiledRows; row += RowBlock)
        {
            int rows = Math.Min(RowBlock, tiledRows - row);
            RunTiles<TKernel>(a + (row * aStride), aStride, rows, depth, panels, panelStride, columnCount, c + (row * cStride), cStride, accumulate);
        }

        for (int row = tiledRows; row < rowCount; row++) RunRow<TKernel>(a + (row * aStride), depth, panels, panelStride, columnCount, c + (row * cStride), accumulate);
    }

    private static void RunTiles<TKernel>(
        float* a, long aStride, int rowCount, int depth, float* panels, long panelStride, int columnCount, float* c, long cStride, bool accumulate)
        where TKernel : struct, IMatrixProductKernel
    {
        float[] storage = _packedRows ??= MatrixProductPanels.AllocateAligned(RowBlock * PackedStride, out _);
        float* packed = (float*)(((nuint)Unsafe.AsPointer(ref storage[0]) + 63) & ~(nuint)63);
        int paddedRows = (rowCount + TKernel.RowTile - 1) / TKernel.RowTile * TKernel.RowTile;
        for (int k = 0; k < depth; k += DepthBlock)
        {
            int length = Math.Min(DepthBlock, depth - k);
            for (int row = 0; row < rowCount; row++) new ReadOnlySpan<float>(a + (row * aStride) + k, length).CopyTo(new Span<float>(packed + (row * PackedStride), length));
            for (int row = rowCount; row < paddedRows; row++) new Span<float>(packed + (row * PackedStride), length).Clear();

            bool add = accumulate || k > 0;
            for (int column = 0; column < columnCount; column += PanelWidth)
            {
                float* panel = panels + (column / PanelWidth * panelStride) + ((long)k * PanelWidth);
                int columns = Math.Min(PanelWidth, columnCount - column);
                Tiles<TKernel>(packed, rowCount, panel, length, columns, c + column, cStride, add);
            }
        }

        GC.KeepAlive(storage);
    }

    private static void RunRow<TKernel>(float* a, int depth, float* panels, long panelStride, int columnCount, float* c, bool accumulate)
        where TKernel : struct, IMatrixProductKernel
    {
        float* edge = stackalloc float[PanelWidth];
        for (int column = 0; column < columnCount; column += PanelWidth)
        {
            float* panel = panels + (column / PanelWidth * panelStride);
            int columns = Math.Min(PanelWidth, columnCount - column);
            for (int k = 0; k < depth; k += DepthBlock)
            {
                int length = Math.Min(DepthBlock, depth - k);
                bool add = accumulate || k > 0;
                float* block = panel + ((long)k * PanelWidth);
                if (columns == PanelWidth)
                {
                    TKernel.Row(a + k, block, length, c + column, add);
                    continue;
                }

                TKernel.Row(a + k, block, length, edge, false);
                Merge(edge, 1, columns, c + column, PanelWidth, add);
            }
        }
    }

    /// <summary>
    /// Packed rows (<see cref="PackedStride"/> floats apart, those that fill up the last tile readable) by one block of a panel: in tiles, fewer than three one by one.
    /// </summary>
    /// <param name="columns">Channels of the panel that C has.</param>
    [SkipLocalsInit]
    internal static void Tiles<TKernel>(float* packed, int rowCount, float* panel, int length, int columns, float* c, long cStride, bool add)
        where TKernel : struct, IMatrixProductKernel
    {
        float* edge = stackalloc float[LargestRowTile * PanelWidth];
        int tile = rowCount < 3 ? 1 : TKernel.RowTile;
        for (int row = 0; row < rowCount; row += tile)
        {
            float* rows = packed + ((long)row * PackedStride);
            int count = Math.Min(tile, rowCount - row);
            bool whole = count == tile && columns == PanelWidth;
            float* target = whole ? c + (row * cStride) : edge;
            if (tile == 1) TKernel.Row(rows, panel, length, target, whole && add);
            else TKernel.Tile(rows, panel, length, target, whole ? cStride : PanelWidth, whole && add);
            if (!whole) Merge(edge, count, columns, c + (row * cStride), cStride, add);
        }
    }

    /// <summary>Takes over the part of a tile that C has.</summary>
    internal static void Merge(float* edge, int rowCount, int columns, float* c, long cStride, bool add)
    {
        for (int row = 0; row < rowCount; row++)
        {
            float* source = edge + (row * PanelWidth);
            float* target = c + (row * cStride);
            for (int i = 0; i < columns; i++) target[i] = add ? target[i] + source[i] : source[i];
        }
    }

    private readonly struct Kernel
    {
        public string Name { get; private init; }
        public int RowTile { get; private init; }
        public delegate*<float*, long, int, int, float*, long, int, float*, long, bool, void> Run { get; private init; }

        public static Kernel Of<TKernel>() where TKernel : struct, IMatrixProductKernel =>
            new() { Name = TKernel.Name, RowTile = TKernel.RowTile, Run = &MatrixProduct.Run<TKernel> };
    }
}
