using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Formats.Gguf.Blocks;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Blocks;

/// <summary>The searches of the types whose values are multiples of a scale.</summary>
public class SymmetricTests(ITestOutputHelper output)
{
    public static TheoryData<string, Effort, bool> Searches
    {
        get
        {
            TheoryData<string, Effort, bool> data = [];
            foreach (string name in new[] { "Q4_0", "Q5_0", "Q8_0", "Q3_K", "Q6_K" })
            {
                foreach (Effort effort in new[] { Effort.Fast, Effort.Normal, Effort.High })
                {
                    data.Add(name, effort, false);
                    data.Add(name, effort, true);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Searches))]
    public void Encoding_is_fit_then_nearest_then_pack(string name, Effort effort, bool hasImportance)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(8192);
        float[] column = hasImportance ? BlockData.Importance() : [];
        float[] weights = [.. Enumerable.Range(0, values.Length).Select(i => hasImportance ? column[i % 512] : 1)];
        double encoded = Error(values, Decode(type, BlockData.Encode(type, values, 512, column, effort)), weights);
        double fitted = Error(values, Decode(type, FitRoundPack(type, values, hasImportance ? weights : [], effort)), weights);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name} {effort}: encoded / fitted {encoded / fitted:f7}"));
        // The reference's own path, which fast takes where it searches nothing, rounds under the scale before it is stored.
        bool isReference = effort == Effort.Fast && (name == "Q8_0" || (!hasImportance && name.EndsWith("_0", StringComparison.Ordinal)));
        Assert.InRange(encoded / fitted, 1 - 1e-6, isReference ? 1.01 : 1 + 1e-6);
    }

    [Theory]
    [MemberData(nameof(Searches))]
    public void Zeros_stay_zeros_and_weights_of_zero_do_no_harm(string name, Effort effort, bool hasImportance)
    {
        BlockType type = BlockData.Block(name);
        float[] weights = hasImportance ? new float[type.ValuesPerBlock] : [];
        foreach ((string what, float[] row) in SpecialRows.For(type.ValuesPerBlock).Where(row => row.Row.Length == type.ValuesPerBlock))
        {
            float[] values = [.. row.Select(value => Math.Clamp(value, -type.LargestMagnitude, type.LargestMagnitude))];
            float[] decoded = Decode(type, BlockData.Encode(type, values, values.Length, weights, effort));
            float largest = values.Max(MathF.Abs);
            Assert.All(decoded, value => Assert.True(MathF.Abs(value) <= (2 * largest) + 1e-5f, $"{name} {effort} {what}: {value} of at most {largest}"));
            if (largest == 0) Assert.All(decoded, value => Assert.Equal(0, value));
        }
    }

    /// <summary>Where d is a denormal half, of few bits, the scales of sub-blocks still reach the extremes.</summary>
    [Theory]
    [MemberData(nameof(Searches))]
    public void Small_values_lose_no_more_than_the_reference(string name, Effort effort, bool hasImportance)
    {
        BlockType type = BlockData.Block(name);
        float[] column = hasImportance ? BlockData.Importance() : [];
        for (int exponent = -20; exponent <= 20; exponent += 4)
        {
            float[] values = [.. BlockData.Values(8192).Select(value => MathF.ScaleB(value, exponent))];
            float[] weights = [.. Enumerable.Range(0, values.Length).Select(i => hasImportance ? column[i % 512] : 1)];
            double reference = Error(values, Decode(type, BlockData.Encode(type, values, 512, column)), weights);
            double ratio = Error(values, Decode(type, BlockData.Encode(type, values, 512, column, effort)), weights) / reference;
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name} {effort} x 2^{exponent}: {ratio:f5}"));
            Assert.InRange(ratio, 0, 1);
        }
    }

    [Theory]
    [InlineData(Effort.Fast)]
    [InlineData(Effort.Normal)]
    [InlineData(Effort.High)]
    public void Rows_that_were_Q8_0_before_lose_nothing(Effort effort)
    {
        BlockType type = BlockData.Block("Q8_0");
        float[] values = Decode(type, BlockData.Encode(type, BlockData.Values(8192), 512, []));
        Assert.Equal(values, Decode(type, BlockData.Encode(type, values, 512, [], effort)));
    }

    /// <summary>Every half that could be the scale, against the search for it. Of values of squares S a least error E becomes E / (1 - E / S) where their gain is restored.</summary>
    [Theory]
    [InlineData("Q4_0", true, 0.001)]
    [InlineData("Q5_0", true, 0.002)]
    [InlineData("Q8_0", false, 0.02)]
    public void High_effort_comes_close_to_the_best_scale_there_is(string name, bool restoresGain, double slack)
    {
        BlockType type = BlockData.Block(name);
        IBlockCodec codec = type.Codec!;
        float[] values = BlockData.Values(2048)[512..1024];
        double found = Error(values, Decode(type, BlockData.Encode(type, values, 512, [], Effort.High)), null);
        double best = 0, restored = 0;
        for (int start = 0; start < values.Length; start += 32)
        {
            double least = double.PositiveInfinity;
            foreach (float sign in new[] { -1, 1 })
            {
                for (Half scale = (Half)1e-4f; scale < (Half)0.1f; scale = Half.BitIncrement(scale))
                {
                    Levels levels = codec.GetLevels([sign * (float)scale], 0);
                    double error = 0;
                    for (int i = start; i < start + 32 && error < least; i++) error += Math.Pow((double)values[i] - levels.Value(levels.Nearest(values[i])), 2);
                    least = Math.Min(least, error);
                }
            }

            best += least;
            double squares = values[start..(start + 32)].Sum(value => Math.Pow(value, 2));
            restored += restoresGain ? least / (1 - (least / squares)) : least;
        }

        output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name}: found / best {found / best:f6}, best with its gain restored {restored / best:f6}"));
        Assert.InRange(found, best * (1 - 1e-6), restored * (1 + slack));
    }

    [Theory]
    [InlineData(16)]
    [InlineData(32)]
    public void Transposing_puts_value_i_of_group_g_at_16_i_plus_g(int length)
    {
        for (int count = 1; count <= Search.Stride; count++)
        {
            float[] groups = [.. Enumerable.Range(1, count * length).Select(i => (float)i)];
            float[] lanes = [.. Enumerable.Repeat(-1f, Search.Stride * length)];
            Search.Transpose(groups, length, lanes);
            for (int g = 0; g < Search.Stride; g++)
            {
                for (int i = 0; i < length; i++) Assert.Equal(g < count ? groups[(g * length) + i] : 0, lanes[(i * Search.Stride) + g]);
            }
        }
    }

    private static byte[] FitRoundPack(BlockType type, float[] values, float[] weights, Effort effort)
    {
        IBlockCodec codec = type.Codec!;
        GridShape shape = codec.Shape;
        float[] parameters = new float[shape.ParameterCount];
        byte[] codes = new byte[shape.BlockLength];
        byte[] packed = new byte[type.ByteCount(values.Length)];
        for (int block = 0; block < values.Length / shape.BlockLength; block++)
        {
            Span<float> from = values.AsSpan(block * shape.BlockLength, shape.BlockLength);
            codec.Fit(from, weights.Length == 0 ? [] : weights.AsSpan(block * shape.BlockLength, shape.BlockLength), effort, parameters);
            for (int i = 0; i < codes.Length; i++) codes[i] = (byte)codec.GetLevels(parameters, i / shape.SubBlockLength).Nearest(from[i]);
            codec.Pack(codes, parameters, packed.AsSpan(block * type.BytesPerBlock, type.BytesPerBlock));
        }

        return packed;
    }

    private static float[] Decode(BlockType type, byte[] blocks)
    {
        float[] decoded = new float[blocks.Length / type.BytesPerBlock * type.ValuesPerBlock];
        type.Decode(blocks, decoded);
        return decoded;
    }

    private static double Error(float[] expected, float[] actual, float[]? weights)
    {
        double sum = 0;
        for (int i = 0; i < expected.Length; i++) sum += (weights?[i] ?? 1) * Math.Pow((double)expected[i] - actual[i], 2);
        return sum;
    }
}
