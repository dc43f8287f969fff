using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Model;

public unsafe class WeightProductTests
{
    public static TheoryData<SimdLevel> Levels => [.. Simd.Available];

    public static TheoryData<string> Types => [.. GgmlTypes.All.Where(type => type.Element.CanEncode).Select(type => type.Name)];

    [Theory]
    [MemberData(nameof(Types))]
    public void EqualsTheSumOfProductsOfTheDecodedRows(string name)
    {
        ElementType type = GgmlTypes.Find(name)!.Element;
        foreach (int depth in type.ValuesPerBlock == 1 ? [1, 30, 257] : new[] { type.ValuesPerBlock, 768 })
        {
            foreach ((int rows, int channels) in new[] { (1, 1), (2, 33), (3, 31), (13, 65), (30, 32) })
            {
                foreach (bool integers in new[] { false, true }) Check(type, rows, channels, depth, integers);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Levels))]
    public void IntegersGiveTheBitsOfTheScalarForm(SimdLevel level)
    {
        foreach (string name in new[] { "Q8_0", "Q6_K" })
        {
            ElementType type = GgmlTypes.Find(name)!.Element;
            for (int runs = 1; runs <= 17; runs += type.ValuesPerBlock == 32 ? 1 : 100)
            {
                int depth = type.ValuesPerBlock == 32 ? 32 * runs : 768;
                foreach (int rows in new[] { 1, 2, 3, 11, 12, 25 })
                {
                    float[] a = Values(rows * depth, runs);
                    Part[] parts = [new Part(type, 45, depth, 7)];
                    Assert.Equal(Multiply(a, rows, depth, parts, 1, true, SimdLevel.Scalar), Multiply(a, rows, depth, parts, 1, true, level));
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Levels))]
    public void BitsDependNeitherOnThreadsNorOnOtherRows(SimdLevel level)
    {
        const int Depth = 544;
        Part[] parts = [new Part(PlainTypes.BF16, 40, Depth, 1), new Part(GgmlTypes.Find("Q4_1")!.Element, 70, Depth, 2), new Part(GgmlTypes.Find("Q8_0")!.Element, 33, Depth, 3)];
        int channels = parts.Sum(part => part.RowCount);
        float[] a = Values(130 * Depth, 1);
        float[] expected = Multiply(a, 130, Depth, parts, 1, true, level);
        foreach (int threads in new[] { 2, 5 }) Assert.Equal(expected, Multiply(a, 130, Depth, parts, threads, true, level));
        foreach (int rows in new[] { 1, 2, 3, 7, 12, 100 }) Assert.Equal(expected.AsSpan(0, rows * channels).ToArray(), Multiply(a, rows, Depth, parts, 2, true, level));
        Assert.Equal(expected.AsSpan(129 * channels).ToArray(), Multiply(a.AsSpan(129 * Depth).ToArray(), 1, Depth, parts, 1, true, level));
    }

    [Fact]
    public void OneRowGivesTheBitsThatItGivesAmongOthers()
    {
        const int Rows = 4;
        foreach (ElementType type in GgmlTypes.All.Select(type => type.Element).Where(type => type.CanEncode))
        {
            foreach (int depth in type.ValuesPerBlock == 1 ? [2, 31, 258, 600] : type.ValuesPerBlock == 32 ? [32, 96, 128, 160, 224, 256, 896, 5152] : new[] { 256, 768, 5376 })
            {
                Part[] parts = [new Part(type, 38, depth, depth)];
                float[] a = Values(Rows * depth, depth + 1);
                float[] expected = Multiply(a, Rows, depth, parts, 1, true, Simd.Level);
                for (int row = 0; row < Rows; row++)
                {
                    Assert.Equal(expected.AsSpan(row * 38, 38).ToArray(), Multiply(a.AsSpan(row * depth, depth).ToArray(), 1, depth, parts, 2, true, Simd.Level));
                }
            }
        }
    }

    [Fact]
    public void EachHalfOfAPairIsWidenedExactly()
    {
        if (Simd.Level < SimdLevel.Avx512) return;
        for (int bits = 0; bits <= ushort.MaxValue; bits++)
        {
            float expected = (float)BitConverter.UInt16BitsToHalf((ushort)bits), actual = UpperHalf.Widen(Vector512.Create(bits << 16))[0];
            Assert.True(float.IsNaN(expected) ? float.IsNaN(actual) : BitConverter.SingleToUInt32Bits(expected) == BitConverter.SingleToUInt32Bits(actual), $"{bits:x4}");
        }
    }

    [Fact]
    public void FloatsGiveTheBitsOfTheMatrixProduct()
    {
        const int Rows = 50, Channels = 70, Depth = 600;
        Part part = new(PlainTypes.F32, Channels, Depth, 5);
        float[] a = Values(Rows * Depth, 6);
        MatrixProductPanels panels = new(Channels, Depth);
        panels.Pack(part.Decoded, 0);
        float[] expected = new float[Rows * Channels];
        MatrixProduct.Multiply(a, Rows, panels, expected, new WorkerTeam(1));
        Assert.Equal(expected, Multiply(a, Rows, Depth, [part], 2, false, Simd.Level));
    }

    [Fact]
    public void RowsOfZerosAndOfOneLargeValueKeepTheirResults()
    {
        const int Depth = 64;
        Part part = new(GgmlTypes.Find("Q8_0")!.Element, 32, Depth, 8);
        float[] a = new float[3 * Depth];
        a[Depth + 3] = 48128;
        a[(2 * Depth) + 40] = 1e-38f;
        float[] c = Multiply(a, 3, Depth, [part], 1, true, Simd.Level);
        for (int channel = 0; channel < 32; channel++)
        {
            Assert.Equal(0, c[channel]);
            Assert.Equal(48128.0 * part.Decoded[(channel * Depth) + 3], c[32 + channel], 0.01 * Math.Abs(part.Decoded[(channel * Depth) + 3]) + 1e-3);
            Assert.Equal(0, c[64 + channel], 1e-30);
        }
    }

    private static void Check(ElementType type, int rows, int channels, int depth, bool integers)
    {
        Part part = new(type, channels, depth, depth + channels);
        float[] a = Values(rows * depth, rows);
        float[] start = Values(rows * channels, 99), c = [.. start];
        WorkerTeam team = new(2);
        fixed (float* from = a, to = c) WeightProduct.Multiply(from, rows, depth, [part], to, channels, team, true, integers, Simd.Level);
        for (int row = 0; row < rows; row++)
        {
            for (int channel = 0; channel < channels; channel++)
            {
                double sum = start[(row * channels) + channel], size = Math.Abs(sum), rounding = 0;
                for (int k = 0; k < depth; k++)
                {
                    double weight = part.Decoded[(channel * depth) + k];
                    sum += a[(row * depth) + k] * weight;
                    size += Math.Abs(a[(row * depth) + k] * weight);
                    rounding += Math.Abs(weight);
                }

                // Values are below one: their codes are off by at most half of 1 / 16383.
                double allowed = (size * 1.2e-7 * (depth + 4)) + (integers && type.Integers is not null ? rounding / 32766 : 0);
                double error = Math.Abs(sum - c[(row * channels) + channel]);
                if (!(error <= allowed)) Assert.Fail($"{type.Name} {rows} x {channels} x {depth}, integers {integers}, [{row}, {channel}]: {c[(row * channels) + channel]} instead of {sum}");
            }
        }
    }

    private static float[] Multiply(float[] a, int rows, int depth, Part[] parts, int threads, bool integers, SimdLevel level)
    {
        int channels = parts.Sum(part => part.RowCount);
        float[] c = new float[rows * channels];
        fixed (float* from = a, to = c) WeightProduct.Multiply(from, rows, depth, parts, to, channels, new WorkerTeam(threads), false, integers, level);
        return c;
    }

    private static float[] Values(int count, int seed)
    {
        Random random = new(seed);
        return [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() * 2) - 1)];
    }

    private sealed class Part : WeightBlocks
    {
        private readonly byte[] _blocks;
        private readonly long _rowBytes;

        public Part(ElementType type, int rowCount, int depth, int seed)
        {
            (Type, RowCount) = (type, rowCount);
            _rowBytes = type.ByteCount(depth);
            _blocks = GC.AllocateArray<byte>(checked((int)(rowCount * _rowBytes)), pinned: true);
            float[] values = Values(rowCount * depth, seed), importance = [.. Values(depth, seed + 1).Select(value => value * value)];
            for (int row = 0; row < rowCount; row++)
            {
                type.EncodeRow(values.AsSpan(row * depth, depth), importance, Effort.Fast, _blocks.AsSpan((int)(row * _rowBytes), (int)_rowBytes));
            }

            Decoded = new float[values.Length];
            type.Decode(_blocks, Decoded);
        }

        public override ElementType Type { get; }

        public override int RowCount { get; }

        public float[] Decoded { get; }

        public override byte* Rows(int firstRow, int rowCount, NativeFloats scratch) => (byte*)Marshal.UnsafeAddrOfPinnedArrayElement(_blocks, 0) + (firstRow * _rowBytes);
    }
}
