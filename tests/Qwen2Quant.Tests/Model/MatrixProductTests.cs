using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Tests.Model;

public unsafe class MatrixProductTests
{
    private static readonly int[] Sizes = [0, 1, 2, 3, 4, 5, 11, 12, 13, 31, 32, 33, 47, 64, 65];

    public static TheoryData<SimdLevel> Levels => [.. Simd.Available];

    [Theory]
    [MemberData(nameof(Levels))]
    public void EqualsTheSumOfProducts(SimdLevel level)
    {
        foreach (int rows in Sizes)
        {
            foreach (int columns in Sizes)
            {
                foreach (int depth in Sizes) CheckOne(rows, columns, depth, level, accumulate: (rows + columns + depth) % 2 == 0);
            }
        }

        CheckOne(200, 70, 530, level, accumulate: true);
        CheckOne(2, 40, 513, level, accumulate: false);
    }

    [Theory]
    [MemberData(nameof(Levels))]
    public void BitsDependNeitherOnThreadsNorOnOtherRows(SimdLevel level)
    {
        const int Rows = 211, Columns = 150, Depth = 300;
        float[] a = Values(Rows * Depth, 1);
        MatrixProductPanels b = Pack(Values(Columns * Depth, 2), Columns, Depth);
        float[] expected = Multiply(a, Rows, b, 1, level);
        foreach (int threads in new[] { 2, 3, 8 }) Assert.Equal(expected, Multiply(a, Rows, b, threads, level));
        foreach (int rows in new[] { 1, 2, 3, 7, 12, 100 }) Assert.Equal(expected.AsSpan(0, rows * Columns).ToArray(), Multiply(a, rows, b, 2, level));
        float[] last = Multiply(a.AsSpan((Rows - 1) * Depth).ToArray(), 1, b, 1, level);
        Assert.Equal(expected.AsSpan((Rows - 1) * Columns).ToArray(), last);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void FewRowsHaveTheSameBits(bool accumulate)
    {
        foreach (int rows in new[] { 1, 2, 3, 4, 7, 8, 9 })
        {
            foreach ((int columns, int depth) in new[] { (32, 64), (33, 7), (256, 128), (90, 300), (5, 1), (64, 0) })
            {
                float[] a = Values(rows * (depth + 3), rows), start = Values(rows * (columns + 5), depth);
                MatrixProductPanels b = Pack(Values(columns * depth, columns), columns, depth);
                float[] expected = [.. start], found = [.. start];
                fixed (float* left = a, one = expected, other = found)
                {
                    MatrixProduct.MultiplyPanels(left, depth + 3, rows, depth, b.Pointer, b.PanelStride, columns, one, columns + 5, accumulate);
                    MatrixProductFewRows.MultiplyPanels(left, depth + 3, rows, depth, b.Pointer, b.PanelStride, columns, other, columns + 5, accumulate);
                }

                Assert.Equal(expected, found);
                GC.KeepAlive(b);
            }
        }
    }

    [Fact]
    public void PanelsGiveBackTheirChannelsAndTakeOthers()
    {
        float[] rows = Values(45 * 7, 3);
        MatrixProductPanels panels = new(45, 7);
        panels.Pack(rows.AsSpan(0, 9 * 7), 0);
        panels.Pack(rows.AsSpan(9 * 7), 9);
        Check(panels, rows, 45, 7);
        Assert.Equal(0UL, (ulong)panels.Pointer % 64);

        panels.Reshape(3, 50);
        float[] others = Values(150, 4);
        panels.Pack(others, 0);
        Check(panels, others, 3, 50);
        Assert.Throws<ArgumentOutOfRangeException>(() => panels.Pack(new float[50], 3));

        static void Check(MatrixProductPanels panels, float[] rows, int count, int depth)
        {
            float[] row = new float[depth];
            for (int i = 0; i < count; i++)
            {
                panels.CopyColumn(i, row);
                Assert.Equal(rows.AsSpan(i * depth, depth).ToArray(), row);
            }
        }
    }

    [Fact]
    public void ShortOperandsAreRefused()
    {
        MatrixProductPanels b = new(3, 4);
        WorkerTeam team = new(1);
        Assert.Throws<ArgumentException>(() => MatrixProduct.Multiply(new float[7], 2, b, new float[6], team));
        Assert.Throws<ArgumentException>(() => MatrixProduct.Multiply(new float[8], 2, b, new float[5], team));
    }

    private static void CheckOne(int rows, int columns, int depth, SimdLevel level, bool accumulate)
    {
        float[] a = Values(rows * depth, rows), b = Values(columns * depth, columns), start = Values(rows * columns, depth);
        MatrixProductPanels panels = Pack(b, columns, depth);
        float[] c = [.. start];
        fixed (float* first = a, target = c) MatrixProduct.Multiply(first, rows, panels, target, columns, new WorkerTeam(1), accumulate, level);
        for (int row = 0; row < rows; row++)
        {
            for (int column = 0; column < columns; column++)
            {
                double sum = accumulate ? start[(row * columns) + column] : 0;
                double size = Math.Abs(sum) + 1e-30;
                for (int k = 0; k < depth; k++)
                {
                    double product = (double)a[(row * depth) + k] * b[(column * depth) + k];
                    sum += product;
                    size += Math.Abs(product);
                }

                double error = Math.Abs(sum - c[(row * columns) + column]);
                if (error > size * 1.2e-7 * (depth + 2)) Assert.Fail($"{rows} x {columns} x {depth} at {level}, [{row}, {column}]: {c[(row * columns) + column]} instead of {sum}");
            }
        }
    }

    private static MatrixProductPanels Pack(float[] rows, int columns, int depth)
    {
        MatrixProductPanels panels = new(columns, depth);
        panels.Pack(rows, 0);
        return panels;
    }

    private static float[] Multiply(float[] a, int rows, MatrixProductPanels b, int threads, SimdLevel level)
    {
        float[] c = new float[rows * b.ColumnCount];
        fixed (float* first = a, target = c) MatrixProduct.Multiply(first, rows, b, target, b.ColumnCount, new WorkerTeam(threads), false, level);
        return c;
    }

    private static float[] Values(int count, int seed)
    {
        Random random = new(seed);
        return [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() * 2) - 1)];
    }
}
