using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Gguf.Blocks;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Blocks;

public class EncoderTests(ITestOutputHelper output)
{
    public static TheoryData<string> EncodableBlockTypes => [.. BlockData.BlockTypes.Where(type => type.CanEncode).Select(type => type.Name)];

    public static TheoryData<string> TypesWithGoldenRows => [.. GgmlTypes.All.Where(type => type.Element.CanEncode && BlockData.Has($"{type.Name}.enc.bin")).Select(type => type.Name)];

    public static TheoryData<string, bool> GoldenHashes
    {
        get
        {
            TheoryData<string, bool> data = [];
            foreach (EncoderGoldens.Golden golden in EncoderGoldens.All.Where(golden => BlockData.Element(golden.Type).CanEncode)) data.Add(golden.Type, golden.HasImportance);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(TypesWithGoldenRows))]
    public void Encodes_the_golden_rows_byte_for_byte(string name)
    {
        // The ternary rows are 1024 values long, the others 128.
        int rowLength = name.StartsWith("TQ", StringComparison.Ordinal) ? 1024 : 128;
        byte[] encoded = BlockData.Encode(BlockData.Element(name), BlockData.Floats($"{name}.enc.f32"), rowLength, []);
        BlockData.AssertSameBytes(BlockData.Bytes($"{name}.enc.bin"), encoded, name);
    }

    [Fact]
    public void Generators_give_the_golden_inputs()
    {
        Assert.Equal("bbd7de9cc21e224511f5aac5f87c8f419e567a1256df0372931d2529ad32b089", BlockData.Hash(BlockData.Values(2048)));
        Assert.Equal("48f17f1b67df9ba321598a6a685e66b62d92b3cc726a626adb9364b43a6131a4", BlockData.Hash(BlockData.Values(512000)));
        Assert.Equal("03ec125946fb59ac7e39b223fded5156e902ab64697607932380afdee1d7f9c3", BlockData.Hash(BlockData.Importance()));
    }

    [Theory]
    [MemberData(nameof(GoldenHashes))]
    public void Reference_encodes_generated_rows_to_the_golden_hash(string name, bool hasImportance)
    {
        EncoderGoldens.Golden golden = EncoderGoldens.All.Single(golden => golden.Type == name && golden.HasImportance == hasImportance);
        float[] importance = hasImportance ? BlockData.Importance() : [];
        ElementType type = BlockData.Element(name);
        Assert.Equal(golden.Hash, BlockData.Hash(BlockData.Encode(type, BlockData.Values(2048), 512, importance)));
        Assert.StartsWith(golden.LargeHashStart, BlockData.Hash(BlockData.Encode(type, BlockData.Values(512000), 512, importance)));
    }

    /// <summary>
    /// A better effort never loses more than a cheaper one on data of a weight's shape. Among searches of IQ4_NL and IQ4_XS without importance what counts is their own
    /// sum, with weights 1 + x^2 / 4 in units of the mean square of 32 values; none exceeds the reference's plain sum.
    /// </summary>
    [Theory]
    [MemberData(nameof(GoldenHashes))]
    public void More_effort_never_raises_the_error(string name, bool hasImportance)
    {
        ElementType type = BlockData.Element(name);
        float[] values = BlockData.Values(65536);
        float[] importance = hasImportance ? BlockData.Importance() : [];
        bool weighsSquares = !hasImportance && name.StartsWith("IQ4", StringComparison.Ordinal);
        double[] errors = [.. Enum.GetValues<Effort>().Select(effort => Error(effort, false))];
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name}: reference 1, fast {errors[1] / errors[0]:f5}, normal {errors[2] / errors[0]:f5}, high {errors[3] / errors[0]:f5}"));
        double[] own = weighsSquares ? [.. Enum.GetValues<Effort>().Select(effort => Error(effort, true))] : errors;
        for (int effort = 1; effort < errors.Length; effort++)
        {
            Assert.InRange(errors[effort], 0, errors[0]);
            Assert.InRange(own[effort], 0, own[effort - 1]);
        }

        double Error(Effort effort, bool addsSquares)
        {
            float[] decoded = new float[values.Length];
            type.Decode(BlockData.Encode(type, values, 512, importance, effort), decoded);
            double sum = 0;
            for (int i = 0; i < values.Length; i++) sum += Weight(i) * Math.Pow((double)values[i] - decoded[i], 2);
            return sum;

            double Weight(int i) => hasImportance ? importance[i % 512] : addsSquares ? 1 + (0.25 * values[i] * values[i] / MeanSquare(i)) : 1;
        }

        double MeanSquare(int i) => values.AsSpan(i & ~31, 32).ToArray().Average(value => (double)value * value);
    }

    [Theory]
    [InlineData("Q4_0", "0080", "88", 16, "0000", "00")]
    [InlineData("Q5_0", "0080ffffffff", "00", 16, "000000000000", "00")]
    [InlineData("Q4_1", "00000000", "00", 16, "00000000", "00")]
    [InlineData("Q5_1", "0000000000000000", "00", 16, "0000000000000000", "00")]
    [InlineData("Q8_0", "0000", "00", 32, "0000", "00")]
    [InlineData("Q2_K", "", "00", 84, "", "00")]
    [InlineData("Q3_K", "", "00", 110, "", "00")]
    [InlineData("Q4_K", "", "00", 144, "", "00")]
    [InlineData("Q5_K", "", "00", 176, "", "00")]
    [InlineData("Q6_K", "", "00", 210, "", "00")]
    [InlineData("IQ4_NL", "0000", "88", 16, "0000", "88")]
    [InlineData("IQ4_XS", "0080aaaa00000000", "88", 128, "0080aaaa00000000", "88")]
    [InlineData("TQ1_0", "", "80", 48, "", "80", "7f7f7f7f0000")]
    [InlineData("TQ2_0", "", "55", 64, "", "55", "0000")]
    [InlineData("MXFP4", "", "00", 17, "", "00")]
    [InlineData("NVFP4", "", "00", 36, "", "00")]
    public void A_block_of_zeros_has_ggmls_bytes(string name, string head, string fill, int count, string weightedHead, string weightedFill, string tail = "")
    {
        BlockType type = BlockData.Block(name);
        if (!type.CanEncode) return;
        float[] zeros = new float[type.ValuesPerBlock];
        float[] ones = [.. Enumerable.Repeat(1f, zeros.Length)];
        string Repeat(string text) => string.Concat(Enumerable.Repeat(text, count));
        Assert.Equal(head + Repeat(fill) + tail, Convert.ToHexStringLower(BlockData.Encode(type, zeros, zeros.Length, [])));
        Assert.Equal(weightedHead + Repeat(weightedFill) + tail, Convert.ToHexStringLower(BlockData.Encode(type, zeros, zeros.Length, ones)));
    }

    [Theory]
    [MemberData(nameof(EncodableBlockTypes))]
    public void Every_vector_width_writes_the_same_bytes(string name)
    {
        BlockType type = BlockData.Block(name);
        int length = type.ValuesPerBlock;
        foreach ((string what, float[] row) in SpecialRows.For(length))
        {
            float[] importance = BlockData.Importance()[..Math.Min(512, row.Length)];
            if (importance.Length < row.Length) importance = [.. Enumerable.Range(0, row.Length).Select(i => importance[i % 512])];
            foreach ((float[] weights, Effort effort) in new[] { [], importance, new float[row.Length] }.SelectMany(weights => Enum.GetValues<Effort>().Select(effort => (weights, effort))))
            {
                byte[] scalar = Encode(SimdLevel.Scalar);
                foreach (SimdLevel level in Simd.Available) BlockData.AssertSameBytes(scalar, Encode(level), $"{name} {level} {effort} {what}, {weights.Length} weights");

                byte[] Encode(SimdLevel level)
                {
                    byte[] guarded = new byte[type.ByteCount(row.Length) + 1];
                    guarded[^1] = 0x5a;
                    type.EncodeRow(level, row, weights, effort, guarded.AsSpan(..^1));
                    Assert.Equal(0x5a, guarded[^1]);
                    return guarded;
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(EncodableBlockTypes))]
    public void Values_within_the_limit_decode_to_finite_ones(string name)
    {
        BlockType type = BlockData.Block(name);
        foreach ((string what, float[] row) in SpecialRows.For(type.ValuesPerBlock))
        {
            foreach (float scale in new[] { 1, type.LargestMagnitude / Math.Max(row.Select(MathF.Abs).DefaultIfEmpty().Max(), 1e-30f) })
            {
                float[] scaled = [.. row.Select(value => Math.Clamp(value * scale, -type.LargestMagnitude, type.LargestMagnitude))];
                float[] decoded = new float[row.Length];
                foreach (Effort effort in Enum.GetValues<Effort>())
                {
                    type.Decode(BlockData.Encode(type, scaled, Math.Max(row.Length, 1), [], effort), decoded);
                    Assert.True(FiniteCheck.FindNonFinite(decoded) < 0, $"{name} {effort} {what} x {scale}");
                }
            }
        }
    }

    /// <summary>Minus and plus the extreme: the first decides the sign of the scale (Q4_0, Q5_0), and both come back exactly where the format can hold them.</summary>
    [Theory]
    [InlineData("Q4_0", 1f, -1f, 0xb0, 0)]
    [InlineData("Q4_0", -1f, 1f, 0x30, 0)]
    [InlineData("Q5_0", 1f, -1f, 0xac, 0)]
    [InlineData("Q5_0", -1f, 1f, 0x2c, 0)]
    public void The_first_of_two_equal_extremes_decides_the_sign(string name, float first, float second, byte scaleHighByte, byte scaleLowByte)
    {
        BlockType type = BlockData.Block(name);
        foreach (SimdLevel level in Simd.Available)
        {
            for (int at = 0; at < 31; at++)
            {
                float[] row = new float[32];
                (row[at], row[31]) = (first, second);
                byte[] block = new byte[type.BytesPerBlock];
                type.EncodeRow(level, row, [], Effort.Reference, block);
                Assert.Equal((scaleLowByte, scaleHighByte), (block[0], block[1]));
                float[] decoded = new float[32];
                type.Decode(block, decoded);
                Assert.Equal(first, decoded[at]);
            }
        }
    }

    /// <summary>ggml keeps the first zero it meets: the sign of a stored zero minimum.</summary>
    [Theory]
    [InlineData("Q4_1")]
    [InlineData("Q5_1")]
    public void The_minimum_keeps_the_sign_of_the_first_zero(string name)
    {
        BlockType type = BlockData.Block(name);
        foreach (SimdLevel level in Simd.Available)
        {
            foreach (float first in new[] { 0f, -0f })
            {
                float[] row = [.. Enumerable.Repeat(1f, 32)];
                row[9] = first;
                row[20] = -first;
                byte[] block = new byte[type.BytesPerBlock];
                type.EncodeRow(level, row, [], Effort.Reference, block);
                Assert.Equal(float.IsNegative(first) ? 0x80 : 0, block[3]);
                row.AsSpan().Fill(-first);
                row[0] = first;
                type.EncodeRow(level, row, [], Effort.Reference, block);
                Assert.Equal((0, 0, 0, float.IsNegative(first) ? 0x80 : 0), (block[0], block[1], block[2], block[3]));
            }
        }
    }

    [Fact]
    public void Types_without_an_encoder_refuse()
    {
        foreach (BlockType type in BlockData.BlockTypes.Where(type => !type.CanEncode))
        {
            Assert.Throws<NotSupportedException>(() => type.EncodeRow(new float[type.ValuesPerBlock], [], Effort.Reference, new byte[type.BytesPerBlock]));
        }
    }

    [Fact]
    public void Importance_of_another_length_is_refused()
    {
        Assert.Throws<ArgumentException>(() => BlockData.Block("Q4_0").EncodeRow(new float[32], new float[31], Effort.Reference, new byte[18]));
    }
}
