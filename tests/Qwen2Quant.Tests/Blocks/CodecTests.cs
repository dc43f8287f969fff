using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Formats.Gguf.Blocks;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Blocks;

public class CodecTests(ITestOutputHelper output)
{
    public static TheoryData<string> Codecs => [.. BlockData.BlockTypes.Where(type => type.Codec is not null).Select(type => type.Name)];

    [Fact]
    public void Every_type_that_encodes_has_a_codec() =>
        Assert.DoesNotContain(BlockData.BlockTypes, type => type.CanEncode != type.Codec is not null);

    [Theory]
    [MemberData(nameof(Codecs))]
    public void Levels_of_unpacked_blocks_equal_the_decoder_and_packing_inverts(string name)
    {
        BlockType type = BlockData.Block(name);
        byte[] golden = BlockData.Has($"{name}.bin") ? BlockData.Bytes($"{name}.bin") : [];
        byte[] blocks = [.. golden, .. BlockData.RandomBlocks(type, 200, 31337)];
        if (name == "TQ1_0") MakeDigitsCanonical(type, blocks);
        for (int start = 0; start < blocks.Length; start += type.BytesPerBlock) CheckBlock(type, blocks.AsSpan(start, type.BytesPerBlock));
    }

    [Theory]
    [MemberData(nameof(Codecs))]
    public void Encoded_special_rows_unpack_and_pack_to_themselves(string name)
    {
        BlockType type = BlockData.Block(name);
        foreach ((_, float[] row) in SpecialRows.For(type.ValuesPerBlock))
        {
            byte[] blocks = BlockData.Encode(type, [.. row.Select(value => Math.Clamp(value, -60000, 60000))], Math.Max(row.Length, 1), []);
            for (int start = 0; start < blocks.Length; start += type.BytesPerBlock) CheckBlock(type, blocks.AsSpan(start, type.BytesPerBlock));
        }
    }

    /// <summary>Nearest codes under the stored parameters lose no more than the reference, which rounds under unrounded ones.</summary>
    [Theory]
    [MemberData(nameof(Codecs))]
    public void Fit_and_nearest_are_no_worse_than_the_reference(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(65536);
        float[] decoded = new float[values.Length];
        type.Decode(BlockData.Encode(type, values, 512, []), decoded);
        double reference = SquaredError(values, decoded);
        double fitted = SquaredError(values, FitAndRound(type, values, []));
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name}: fitted / reference squared error {fitted / reference:f6}"));
        Assert.InRange(fitted / reference, 0.2, 1);
    }

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q4_1")]
    [InlineData("Q5_0")]
    [InlineData("Q5_1")]
    [InlineData("Q6_K")]
    public void Importance_lowers_the_weighted_error(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(65536);
        float[] column = BlockData.Importance();
        float[] weights = [.. Enumerable.Range(0, values.Length).Select(i => column[i % 512] * column[i % 512] * column[i % 512])];
        double plain = SquaredError(values, FitAndRound(type, values, []), weights);
        double weighted = SquaredError(values, FitAndRound(type, values, weights), weights);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name}: weighted / plain {weighted / plain:f6}"));
        Assert.InRange(weighted / plain, 0.3, 0.999);
    }

    /// <summary>The encoder's codes are as good as the nearest ones under the parameters that it fits, and the fit's parameters are the encoder's.</summary>
    [Theory]
    [InlineData("IQ4_NL")]
    [InlineData("IQ4_XS")]
    [InlineData("MXFP4")]
    [InlineData("NVFP4")]
    [InlineData("TQ1_0")]
    [InlineData("TQ2_0")]
    public void Encoding_is_fitting_rounding_and_packing(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(32768);
        float[] column = BlockData.Importance();
        float[] all = [.. Enumerable.Range(0, values.Length).Select(i => column[i % 512])];
        foreach (float[] weights in new[] { [], all })
        {
            foreach (Effort effort in new[] { Effort.Fast, Effort.Normal, Effort.High })
            {
                float[] decoded = new float[values.Length];
                type.Decode(BlockData.Encode(type, values, 512, weights.Length == 0 ? [] : column, effort), decoded);
                double encoded = SquaredError(values, decoded, weights.Length == 0 ? null : weights);
                double fitted = SquaredError(values, FitAndRound(type, values, weights, effort), weights.Length == 0 ? null : weights);
                Assert.InRange(encoded / fitted, 1 - 1e-7, 1 + 1e-7);
            }
        }
    }

    /// <summary>Weights of zero say nothing, and neither do they break anything.</summary>
    [Theory]
    [InlineData("IQ4_NL")]
    [InlineData("IQ4_XS")]
    [InlineData("MXFP4")]
    [InlineData("NVFP4")]
    [InlineData("TQ1_0")]
    [InlineData("TQ2_0")]
    public void Importance_of_zero_still_gives_a_usable_block(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(type.ValuesPerBlock * 4);
        double power = SquaredError(values, new float[values.Length]);
        foreach (Effort effort in new[] { Effort.Fast, Effort.Normal, Effort.High })
        {
            float[] decoded = new float[values.Length];
            type.Decode(BlockData.Encode(type, values, values.Length, new float[values.Length], effort), decoded);
            Assert.InRange(SquaredError(values, decoded), 0, power);
        }
    }

    /// <summary>Weights that are ternary already, many or few of them zero, come back exactly at every effort.</summary>
    [Theory]
    [InlineData("TQ1_0", 2)]
    [InlineData("TQ1_0", 50)]
    [InlineData("TQ2_0", 2)]
    [InlineData("TQ2_0", 50)]
    public void Ternary_values_come_back_exactly(string name, int oneIn)
    {
        float[] values = [.. Enumerable.Range(0, 1024).Select(i => i % oneIn != 0 ? 0 : i % 3 == 0 ? -0.0625f : 0.0625f)];
        float[] decoded = new float[values.Length];
        foreach (Effort effort in Enum.GetValues<Effort>())
        {
            BlockData.Block(name).Decode(BlockData.Encode(BlockData.Block(name), values, values.Length, [], effort), decoded);
            Assert.Equal(values, decoded);
        }
    }

    /// <summary>Several bytes mean the same five digits, and only one of them is written; the fifth of the last four bytes is not read.</summary>
    private static void MakeDigitsCanonical(BlockType type, byte[] blocks)
    {
        float[] decoded = new float[type.ValuesPerBlock];
        float[] again = new float[type.ValuesPerBlock];
        byte[] codes = new byte[type.ValuesPerBlock];
        float[] parameters = new float[1];
        for (int start = 0; start < blocks.Length; start += type.BytesPerBlock)
        {
            Span<byte> block = blocks.AsSpan(start, type.BytesPerBlock);
            type.Decode(block, decoded);
            type.Codec!.Unpack(block, codes, parameters);
            type.Codec.Pack(codes, parameters, block);
            type.Decode(block, again);
            BlockData.AssertSameBits(decoded, again, type.Name);
        }
    }

    private static void CheckBlock(BlockType type, ReadOnlySpan<byte> block)
    {
        IBlockCodec codec = type.Codec!;
        GridShape shape = codec.Shape;
        byte[] codes = new byte[shape.BlockLength];
        float[] parameters = new float[shape.ParameterCount];
        codec.Unpack(block, codes, parameters);
        float[] values = [.. codes.Select((code, i) => codec.GetLevels(parameters, i / shape.SubBlockLength).Value(code))];
        float[] decoded = new float[shape.BlockLength];
        type.Decode(block, decoded);
        BlockData.AssertSameBits(decoded, values, type.Name);
        byte[] packed = new byte[block.Length];
        codec.Pack(codes, parameters, packed);
        BlockData.AssertSameBytes(block, packed, type.Name);
    }

    private static float[] FitAndRound(BlockType type, float[] values, float[] weights, Effort effort = Effort.Reference)
    {
        IBlockCodec codec = type.Codec!;
        GridShape shape = codec.Shape;
        float[] parameters = new float[shape.ParameterCount];
        float[] rounded = new float[values.Length];
        for (int start = 0; start < values.Length; start += shape.BlockLength)
        {
            codec.Fit(values.AsSpan(start, shape.BlockLength), weights.Length == 0 ? [] : weights.AsSpan(start, shape.BlockLength), effort, parameters);
            for (int i = 0; i < shape.BlockLength; i += shape.GranuleLength)
            {
                Levels levels = codec.GetLevels(parameters, i / shape.SubBlockLength);
                byte[] codes = new byte[shape.GranuleLength];
                if (codec is ICodebookGrid codebook) codebook.Round(values.AsSpan(start + i, codes.Length), weights.Length == 0 ? [] : weights.AsSpan(start + i, codes.Length), parameters, i, codes);
                else codes[0] = (byte)levels.Nearest(values[start + i]);
                for (int j = 0; j < codes.Length; j++) rounded[start + i + j] = levels.Value(codes[j]);
            }
        }

        return rounded;
    }

    private static double SquaredError(float[] expected, float[] actual, float[]? weights = null)
    {
        double sum = 0;
        for (int i = 0; i < expected.Length; i++) sum += (weights?[i] ?? 1) * Math.Pow((double)expected[i] - actual[i], 2);
        return sum;
    }
}
