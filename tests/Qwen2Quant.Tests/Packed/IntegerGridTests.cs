using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Blocks;

namespace Qwen2Quant.Tests.Packed;

public unsafe class IntegerGridTests
{
    private const int Width = 512;

    public static TheoryData<int, int, bool, bool> Grids
    {
        get
        {
            TheoryData<int, int, bool, bool> grids = [];
            foreach (int bits in new[] { 2, 3, 4, 8 })
            {
                foreach (bool isSymmetric in new[] { true, false })
                {
                    grids.Add(bits, 32, isSymmetric, true);
                    grids.Add(bits, 128, isSymmetric, true);
                    grids.Add(bits, Width, isSymmetric, true);
                    grids.Add(bits, 64, isSymmetric, false);
                }
            }

            return grids;
        }
    }

    [Fact]
    public void EqualParametersAreOneType()
    {
        Assert.Same(IntegerGridType.Of(4, 128, true, PlainTypes.F16), IntegerGridType.Of(4, 128, true, PlainTypes.F16, 1));
        Assert.NotSame(IntegerGridType.Of(4, 128, false, PlainTypes.F16), IntegerGridType.Of(4, 128, false, PlainTypes.F16, 1));
        Assert.Throws<ArgumentException>(() => IntegerGridType.Of(5, 128, true, PlainTypes.F16));
        Assert.Throws<ArgumentException>(() => IntegerGridType.Of(4, 48, true, PlainTypes.F16));
        Assert.Throws<ArgumentException>(() => IntegerGridType.Of(4, 64, true, PlainTypes.F32));
    }

    [Theory]
    [MemberData(nameof(Grids))]
    public void DecodedValuesAreTheLevelsBitForBit(int bits, int group, bool isSymmetric, bool hasHalfScales)
    {
        IntegerGridType type = Type(bits, group, isSymmetric, hasHalfScales);
        byte[] blocks = new byte[type.ByteCount(Width)];
        new Random(5).NextBytes(blocks);
        for (int block = 0; block < blocks.Length; block += type.BytesPerBlock)
        {
            // A scale that is finite and not zero, of either sign.
            blocks[block + 1] = (byte)((blocks[block + 1] & 0xbf) | 0x20);
            if (!isSymmetric) blocks[block + 2] &= (byte)((1 << bits) - 1);
        }

        float[] values = new float[Width], parameters = new float[2];
        type.Decode(blocks, values);
        byte[] codes = new byte[group];
        for (int block = 0; block < Width / group; block++)
        {
            byte[] stored = blocks[(block * type.BytesPerBlock)..((block + 1) * type.BytesPerBlock)], packed = new byte[stored.Length];
            type.Unpack(stored, codes, parameters);
            type.Pack(codes, parameters, packed);
            Assert.Equal(stored, packed);
            Levels levels = type.GetLevels(parameters, 0);
            for (int i = 0; i < group; i++) Assert.Equal(BitConverter.SingleToInt32Bits(levels.Value(codes[i])), BitConverter.SingleToInt32Bits(values[(block * group) + i]));
        }

        foreach (SimdLevel level in Simd.Available)
        {
            float[] others = new float[Width];
            type.Decode(level, blocks, others);
            Assert.Equal(values, others);
        }

        short[] integers = new short[Width];
        float[] scales = new float[Width / 32 * 3];
        fixed (byte* from = blocks)
        fixed (short* to = integers)
        fixed (float* toScales = scales) type.Integers.Unpack(from, Width, to, toScales, null, 3);
        for (int i = 0; i < Width; i++) Assert.Equal(values[i], scales[i / 32 * 3] * integers[i]);
    }

    [Theory]
    [MemberData(nameof(Grids))]
    public void EncodingIsFittingAndRounding(int bits, int group, bool isSymmetric, bool hasHalfScales)
    {
        IntegerGridType type = Type(bits, group, isSymmetric, hasHalfScales);
        float[] values = BlockData.Values(Width), importance = [.. BlockData.Values(Width).Select(value => MathF.Exp(value))], decoded = new float[Width], parameters = new float[2];
        foreach (Effort effort in Enum.GetValues<Effort>())
        {
            foreach (float[] weights in new[] { [], importance })
            {
                byte[] blocks = new byte[type.ByteCount(Width)];
                type.EncodeRow(values, weights, effort, blocks);
                type.Decode(blocks, decoded);
                for (int first = 0; first < Width; first += group)
                {
                    type.Fit(values.AsSpan(first, group), weights.Length == 0 ? weights : weights.AsSpan(first, group), effort, parameters);
                    Levels levels = type.GetLevels(parameters, 0);
                    Assert.True(levels.Step > 0);
                    for (int i = first; i < first + group; i++) Assert.Equal(MathF.Abs(levels.Value(levels.Nearest(values[i])) - values[i]), MathF.Abs(decoded[i] - values[i]), 1e-6f);
                }

                foreach (SimdLevel level in Simd.Available)
                {
                    byte[] others = new byte[blocks.Length];
                    type.EncodeRow(level, values, weights, effort, others);
                    Assert.Equal(blocks, others);
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Grids))]
    public void MoreEffortLosesLess(int bits, int group, bool isSymmetric, bool hasHalfScales)
    {
        IntegerGridType type = Type(bits, group, isSymmetric, hasHalfScales);
        float[] values = BlockData.Values(32 * Width);
        double[] errors = [.. Enum.GetValues<Effort>().Select(effort => Error(type, values, effort))];
        Assert.True(errors[1] < errors[0], string.Join(", ", errors));
        Assert.True(errors[2] <= errors[1] * 1.002, string.Join(", ", errors));
        Assert.True(errors[3] <= errors[2] * 1.002, string.Join(", ", errors));
    }

    [Fact]
    public void AnAffineGridLosesLessOnValuesToOneSide()
    {
        float[] values = [.. BlockData.Values(8 * Width).Select(MathF.Abs)];
        Assert.True(Error(Type(4, 128, false, true), values, Effort.Normal) < 0.5 * Error(Type(4, 128, true, true), values, Effort.Normal));
    }

    [Fact]
    public void VersionOneHasNoZeroOfZero()
    {
        IntegerGridType type = IntegerGridType.Of(4, 32, false, PlainTypes.F16, 1);
        float[] values = [.. Enumerable.Range(0, 32).Select(i => 1f + i)], parameters = new float[2];
        foreach (Effort effort in Enum.GetValues<Effort>())
        {
            type.Fit(values, [], effort, parameters);
            Assert.Equal(1, parameters[1]);
            IntegerGridType.Of(4, 32, false, PlainTypes.F16).Fit(values, [], effort, parameters);
            Assert.Equal(0, parameters[1]);
        }
    }

    [Theory]
    [MemberData(nameof(Grids))]
    public void ZerosDecodeToZerosUnderAScaleThatCanBeDividedBy(int bits, int group, bool isSymmetric, bool hasHalfScales)
    {
        IntegerGridType type = Type(bits, group, isSymmetric, hasHalfScales);
        byte[] blocks = new byte[type.ByteCount(Width)];
        float[] decoded = new float[Width];
        foreach (float value in new[] { 0f, -0f, 1e-30f })
        {
            type.EncodeRow([.. Enumerable.Repeat(value, Width)], [], Effort.Normal, blocks);
            type.Decode(blocks, decoded);
            Assert.All(decoded, item => Assert.Equal(0, item, 1e-7f));
            Assert.All(Enumerable.Range(0, Width / group), block => Assert.True(new StoredScale(type.ScaleType).Read(blocks.AsSpan(block * type.BytesPerBlock)) > 0));
        }
    }

    [Theory]
    [MemberData(nameof(Grids))]
    public void TheLargestMagnitudeStaysFinite(int bits, int group, bool isSymmetric, bool hasHalfScales)
    {
        IntegerGridType type = Type(bits, group, isSymmetric, hasHalfScales);
        float[] values = [.. BlockData.Values(Width).Select((value, i) => i % 32 == 3 ? -type.LargestMagnitude : i % 32 == 9 ? type.LargestMagnitude : value)], decoded = new float[Width];
        byte[] blocks = new byte[type.ByteCount(Width)];
        foreach (Effort effort in Enum.GetValues<Effort>())
        {
            type.EncodeRow(values, [], effort, blocks);
            type.Decode(blocks, decoded);
            Assert.All(decoded, value => Assert.True(float.IsFinite(value)));
        }
    }

    [Theory]
    [InlineData(4, true)]
    [InlineData(4, false)]
    [InlineData(3, true)]
    public void GptqLosesLessThanRounding(int bits, bool isSymmetric)
    {
        IntegerGridType type = Type(bits, 128, isSymmetric, true);
        WorkerTeam team = new(2);
        float[] weights = BlockData.Values(16 * Width);
        Random random = new(7);
        float[] inputs = new float[600 * Width];
        for (int row = 0; row < 600; row++)
        {
            float shared = (float)random.NextDouble() - 0.5f;
            for (int column = 0; column < Width; column++) inputs[(row * Width) + column] = (shared * 3) + (float)random.NextDouble() - 0.5f;
        }

        GramMatrix gram = new(Width);
        gram.Add(inputs, 600, team);
        gram.Fold(team);
        GptqErrors errors = new GptqSolver(new GptqHessian("test", gram, 1, new GptqOptions(), team)).Solve(new RowSlab("test", 0, Width, weights), type, Effort.Normal, new byte[type.ByteCount(weights.Length)], team);
        Assert.True(errors.After < 0.7 * errors.Before, $"{errors}");
    }

    private static IntegerGridType Type(int bits, int group, bool isSymmetric, bool hasHalfScales) => IntegerGridType.Of(bits, group, isSymmetric, hasHalfScales ? PlainTypes.F16 : PlainTypes.BF16);

    private static double Error(IntegerGridType type, float[] values, Effort effort)
    {
        byte[] blocks = new byte[type.ByteCount(values.Length)];
        float[] decoded = new float[values.Length];
        type.EncodeRow(values, [], effort, blocks);
        type.Decode(blocks, decoded);
        return values.Zip(decoded, (a, b) => Math.Pow(a - b, 2)).Sum();
    }
}
