using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Rows of one matrix in the blocks of their type.</summary>
public abstract unsafe class WeightBlocks
{
    public abstract ElementType Type { get; }

    /// <summary>Output channels.</summary>
    public abstract int RowCount { get; }

    /// <summary>Rows from <paramref name="firstRow"/> on, back to back; where they are not in memory they are read into <paramref name="scratch"/>. Thread-safe.</summary>
    public abstract byte* Rows(int firstRow, int rowCount, NativeFloats scratch);
}

/// <summary>
/// C = A W^T where the rows of W are blocks of any type. Each thread brings the rows of one panel, a block of depth at a time, into the form that the kernels
/// read (floats, or integers for the types that have them) and multiplies all of A with it: W is decoded once for a batch, and nothing of it is kept.
/// A result has the same bits whatever the number of threads and of rows: floats are summed as by <see cref="MatrixProduct"/>, integers as by <see cref="IIntegerKernel"/>.
/// </summary>
public static unsafe class WeightProduct
{
    private const int Width = MatrixProduct.PanelWidth;
    private const int Block = MatrixProduct.DepthBlock;

    // Rows that one task multiplies at least, where there are too few panels for all threads: unpacking then still costs little beside.
    private const int LeastRowsPerTask = 48;

    [ThreadStatic]
    private static PackedInput? _input;

    [ThreadStatic]
    private static PanelPacker? _packer;

    /// <summary>True where integer kernels are as fast as those of floats: with AVX2.</summary>
    public static bool HasIntegerKernels => Simd.Level >= SimdLevel.Avx2;

    /// <param name="a">[rowCount, depth].</param>
    /// <param name="parts">Matrices of one depth, whose channels lie side by side in C.</param>
    /// <param name="c">[rowCount, all channels], rows <paramref name="cStride"/> floats apart.</param>
    /// <param name="exact">Multiplies floats even where a type has integers.</param>
    public static void Multiply(float* a, int rowCount, int depth, IReadOnlyList<WeightBlocks> parts, float* c, long cStride, WorkerTeam team, bool accumulate, bool exact) =>
        Multiply(a, rowCount, depth, parts, c, cStride, team, accumulate, !exact && HasIntegerKernels, Simd.Level);

    internal static void Multiply(
        float* a, int rowCount, int depth, IReadOnlyList<WeightBlocks> parts, float* c, long cStride, WorkerTeam team, bool accumulate, bool integers, SimdLevel level)
    {
        if (rowCount == 0) return;
        int panelCount = parts.Sum(part => (part.RowCount + Width - 1) / Width);
        int rowChunks = Math.Clamp((2 * team.ThreadCount + panelCount - 1) / panelCount, 1, Math.Max(rowCount / LeastRowsPerTask, 1));
        int rowsPerChunk = ((rowCount + rowChunks - 1) / rowChunks + MatrixProduct.LargestRowTile - 1) / MatrixProduct.LargestRowTile * MatrixProduct.LargestRowTile;
        int panelsPerTask = Math.Max(panelCount / ((rowCount == 1 ? 2 : 8) * team.ThreadCount), 1);
        List<Job> jobs = [];
        long firstColumn = 0;
        foreach (WeightBlocks part in parts)
        {
            int panels = (part.RowCount + Width - 1) / Width;
            bool asIntegers = integers && part.Type.Integers is not null;
            for (int panel = 0; panel < panels; panel += panelsPerTask)
            {
                for (int row = 0; row < rowCount; row += rowsPerChunk)
                {
                    jobs.Add(new Job(part, asIntegers, panel, Math.Min(panel + panelsPerTask, panels), row, Math.Min(rowsPerChunk, rowCount - row), c + (row * cStride) + firstColumn));
                }
            }

            firstColumn += part.RowCount;
        }

        PackedInput input = _input ??= new PackedInput();
        input.Pack(a, rowCount, depth, jobs.Exists(job => !job.AsIntegers), jobs.Exists(job => job.AsIntegers), team, level);
        delegate*<in Job, PackedInput, int, long, bool, SimdLevel, PanelPacker, void> run =
            level >= SimdLevel.Avx512 ? &Run<MatrixProductAvx512, IntegerKernelAvx512>
            : level >= SimdLevel.Avx2 ? &Run<MatrixProductAvx2, IntegerKernelAvx2>
            : level >= SimdLevel.Vector128 ? &Run<MatrixProductVector128, IntegerKernelScalar>
            : &Run<MatrixProductScalar, IntegerKernelScalar>;
        team.Run(jobs.Count, task => run(jobs[task], input, depth, cStride, accumulate, level, _packer ??= new PanelPacker()));
        GC.KeepAlive(input);
    }

    private static void Run<TFloat, TInteger>(in Job job, PackedInput input, int depth, long cStride, bool accumulate, SimdLevel level, PanelPacker packer)
        where TFloat : struct, IMatrixProductKernel
        where TInteger : struct, IIntegerKernel
    {
        IntegerForm? dots = HasDots(job, depth, level) ? job.Part.Type.Integers : null;
        if (dots is not null) packer.Row.Fill(input, job.FirstRow, depth, dots);
        for (int panel = job.FirstPanel; panel < job.EndPanel; panel++)
        {
            int firstChannel = panel * Width;
            int channels = Math.Min(Width, job.Part.RowCount - firstChannel);
            byte* rows = job.Part.Rows(firstChannel, channels, packer.Raw);
            if (dots is not null) dots.Dots(rows, job.Part.Type.ByteCount(depth), channels, depth, packer.Row.Input, job.C + firstChannel, accumulate);
            else if (job.AsIntegers) Integers<TFloat, TInteger>(job, input, rows, channels, depth, job.C + firstChannel, cStride, accumulate, level, packer);
            else Floats<TFloat>(job, input, rows, channels, depth, job.C + firstChannel, cStride, accumulate, level, packer);
        }

        GC.KeepAlive(packer);
    }

    private static void Floats<TFloat>(in Job job, PackedInput input, byte* rows, int channels, int depth, float* c, long cStride, bool accumulate, SimdLevel level, PanelPacker packer)
        where TFloat : struct, IMatrixProductKernel
    {
        if (job.RowCount == 1 && level >= SimdLevel.Avx512 && depth % 2 == 0 && (job.Part.Type == PlainTypes.BF16 || job.Part.Type == PlainTypes.F16))
        {
            Pairs(job, input, rows, channels, depth, c, accumulate, level, packer);
            return;
        }

        packer.UnpackFloats(job.Part.Type, rows, channels, depth);
        for (int k = 0; k < depth; k += Block)
        {
            int length = Math.Min(Block, depth - k);
            MatrixProduct.Tiles<TFloat>(input.Floats(k / Block, job.FirstRow), job.RowCount, packer.Block(k, length, level), length, channels, c, cStride, accumulate || k > 0);
        }
    }

    // One row is widened as it is multiplied: the panel takes half the room.
    [SkipLocalsInit]
    private static void Pairs(in Job job, PackedInput input, byte* rows, int channels, int depth, float* c, bool accumulate, SimdLevel level, PanelPacker packer)
    {
        float* sums = stackalloc float[Width];
        delegate*<float*, float*, int, float*, void> row = job.Part.Type == PlainTypes.BF16 ? &SixteenBitProduct<UpperBFloat16>.Row : &SixteenBitProduct<UpperHalf>.Row;
        packer.TakePairs(rows, channels, depth);
        for (int k = 0; k < depth; k += Block)
        {
            int pairs = Math.Min(Block, depth - k) / 2;
            row(input.Floats(k / Block, job.FirstRow), packer.Block(k / 2, pairs, level), pairs, sums);
            MatrixProduct.Merge(sums, 1, channels, c, 0, accumulate || k > 0);
        }
    }

    // One row needs no panel where a type multiplies its blocks as they are; the sums of more than 256 runs would be two steps of the product.
    private static bool HasDots(in Job job, int depth, SimdLevel level) =>
        job.AsIntegers && job.RowCount == 1 && level >= SimdLevel.Avx512 && job.Part.Type.Integers is { HasDots: true } form && !(form.HasOrigins && depth > Block * IntegerForm.ScaleLength);

    private static void Integers<TFloat, TInteger>(in Job job, PackedInput input, byte* rows, int channels, int depth, float* c, long cStride, bool accumulate, SimdLevel level, PanelPacker packer)
        where TFloat : struct, IMatrixProductKernel
        where TInteger : struct, IIntegerKernel
    {
        packer.UnpackIntegers(job.Part.Type, rows, channels, depth);
        for (int k = 0; k < depth; k += Block)
        {
            int length = Math.Min(Block, depth - k);
            short* a = input.Codes(k / Block, job.FirstRow);
            float* aScales = input.Scales(k / Block, job.FirstRow), scales = packer.Scales + (k / IntegerForm.ScaleLength * Width);
            int scaleCount = length / IntegerForm.ScaleLength;
            bool add = accumulate || k > 0;
            IntegerTiles<TInteger>(a, aScales, job.RowCount, (short*)packer.Block(k / 2, length / 2, level), scales, scaleCount, channels, c, cStride, add);
        }

        if (!job.Part.Type.Integers!.HasOrigins) return;
        int runs = depth / IntegerForm.ScaleLength;
        for (int k = 0; k < runs; k += Block)
        {
            MatrixProduct.Tiles<TFloat>(input.Sums(k / Block, job.FirstRow), job.RowCount, packer.Origins + (k * Width), Math.Min(Block, runs - k), channels, c, cStride, true);
        }
    }

    [SkipLocalsInit]
    private static void IntegerTiles<TInteger>(short* a, float* aScales, int rowCount, short* panel, float* scales, int runs, int channels, float* c, long cStride, bool add)
        where TInteger : struct, IIntegerKernel
    {
        float* edge = stackalloc float[MatrixProduct.LargestRowTile * Width];
        int tile = rowCount < 3 ? 1 : TInteger.RowTile;
        for (int row = 0; row < rowCount; row += tile)
        {
            short* rows = a + ((long)row * IntegerPanel.RowStride);
            float* rowScales = aScales + ((long)row * IntegerPanel.ScalesPerBlock);
            int count = Math.Min(tile, rowCount - row);
            bool whole = count == tile && channels == Width;
            float* target = whole ? c + (row * cStride) : edge;
            if (tile == 1) TInteger.Row(rows, rowScales, panel, scales, runs, target, whole && add);
            else TInteger.Tile(rows, rowScales, panel, scales, runs, target, whole ? cStride : Width, whole && add);
            if (!whole) MatrixProduct.Merge(edge, count, channels, c + (row * cStride), cStride, add);
        }
    }

    private readonly struct Job(WeightBlocks part, bool asIntegers, int firstPanel, int endPanel, int firstRow, int rowCount, float* c)
    {
        public readonly WeightBlocks Part = part;
        public readonly bool AsIntegers = asIntegers;
        public readonly int FirstPanel = firstPanel;
        public readonly int EndPanel = endPanel;
        public readonly int FirstRow = firstRow;
        public readonly int RowCount = rowCount;

        /// <summary>The first row, channel 0 of the part.</summary>
        public readonly float* C = c;
    }
}
