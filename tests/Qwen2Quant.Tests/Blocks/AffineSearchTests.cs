using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Formats.Gguf.Blocks;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Blocks;

/// <summary>The searched encoders of the types with a scale and a minimum.</summary>
public class AffineSearchTests(ITestOutputHelper output)
{
    private static readonly Effort[] Searched = [Effort.Fast, Effort.Normal, Effort.High];

    public static TheoryData<string, bool> Types
    {
        get
        {
            TheoryData<string, bool> data = [];
            foreach (string name in new[] { "Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K" })
            {
                data.Add(name, false);
                data.Add(name, true);
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void Encoding_equals_fitting_rounding_and_packing(string name, bool hasImportance)
    {
        BlockType type = BlockData.Block(name);
        IBlockCodec codec = type.Codec!;
        GridShape shape = codec.Shape;
        float[] values = BlockData.Values(16384);
        float[] column = BlockData.Importance();
        float[] parameters = new float[shape.ParameterCount];
        byte[] codes = new byte[shape.BlockLength];
        // Q4_1 and Q5_1 are not searched in haste: their codes are ggml's, nearest under steps that are not rounded yet.
        bool isSearchedFast = hasImportance || name.EndsWith('K');
        foreach (Effort effort in Searched.Where(effort => effort != Effort.Fast || isSearchedFast))
        {
            float[] encoded = new float[values.Length], fitted = new float[values.Length];
            type.Decode(BlockData.Encode(type, values, 512, hasImportance ? column : [], effort), encoded);
            byte[] block = new byte[type.BytesPerBlock];
            for (int start = 0; start < values.Length; start += shape.BlockLength)
            {
                ReadOnlySpan<float> importance = hasImportance ? column.AsSpan(start % 512, shape.BlockLength) : [];
                codec.Fit(values.AsSpan(start, shape.BlockLength), importance, effort, parameters);
                for (int i = 0; i < codes.Length; i++) codes[i] = (byte)codec.GetLevels(parameters, i / shape.SubBlockLength).Nearest(values[start + i]);
                codec.Pack(codes, parameters, block);
                type.Decode(block, fitted.AsSpan(start, shape.BlockLength));
            }

            double ratio = Error(values, encoded, hasImportance ? column : []) / Error(values, fitted, hasImportance ? column : []);
            Assert.InRange(ratio, 1 - 1e-6, 1 + 1e-6);
        }
    }

    /// <summary>Columns with massive activations have an importance of a million times the others'; their values may be much smaller than others'.</summary>
    [Theory]
    [InlineData("Q4_1")]
    [InlineData("Q5_1")]
    [InlineData("Q4_K")]
    [InlineData("Q5_K")]
    [InlineData("Q2_K")]
    [InlineData("Q3_K")]
    [InlineData("Q6_K")]
    [InlineData("Q4_0")]
    [InlineData("Q5_0")]
    [InlineData("IQ3_XXS")]
    public void A_column_that_outweighs_all_others_keeps_its_values(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(65536);
        for (int i = 37; i < values.Length / 2; i += 512) values[i] /= 50;
        float[] importance = BlockData.Importance();
        importance[37] = 1e6f;
        importance[300] = 1e5f;
        float[] decoded = new float[values.Length];
        type.Decode(BlockData.Encode(type, values, 512, importance), decoded);
        double reference = Error(values, decoded, importance);
        foreach (Effort effort in Searched)
        {
            type.Decode(BlockData.Encode(type, values, 512, importance, effort), decoded);
            double ratio = Error(values, decoded, importance) / reference;
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name} {effort}: {ratio:f5}"));
            Assert.InRange(ratio, 0, 1);
        }
    }

    /// <summary>No special row is lost: the error is the reference's or less, or less than a percent of the values, as where a few parameters fit a row by chance; a search may lose more on a single such block: fast up to half, normal up to a twentieth, and high what it costs to restore the gain of values of squares S: E / (1 - E / S) for an error E.</summary>
    [Theory]
    [MemberData(nameof(Types))]
    public void Special_rows_are_not_lost(string name, bool hasImportance)
    {
        BlockType type = BlockData.Block(name);
        foreach ((string what, float[] row) in SpecialRows.For(type.ValuesPerBlock).Where(special => special.Row.Length > 0 && !special.What.Contains("normal") && special.What != "large"))
        {
            float[] clamped = [.. row.Select(value => Math.Clamp(value, -20000, 20000))];
            float[] importance = hasImportance ? [.. Enumerable.Range(0, row.Length).Select(i => BlockData.Importance()[i % 512])] : [];
            double reference = Lost(Effort.Reference);
            double slack = clamped.Sum(value => Math.Pow(value / 150.0, 2)) * (hasImportance ? Math.Max(1, importance.Max()) : 1);
            double squares = Error(clamped, new float[row.Length], importance);
            double restored = name.EndsWith('K') && squares > 0 ? 1 / (1 - Math.Min(0.5, reference / squares)) : 1;
            foreach (Effort effort in Searched)
            {
                double lost = Lost(effort);
                output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{what} {effort}: {lost:g4} of {reference:g4}, slack {slack:g4}"));
                Assert.True(lost <= (reference * (effort switch { Effort.Fast => 1.5, Effort.Normal => 1.05, _ => 1.0001 * restored })) + slack, $"{what} {effort}: {lost} where the reference loses {reference}");
            }

            double Lost(Effort effort)
            {
                float[] decoded = new float[row.Length];
                type.Decode(BlockData.Encode(type, clamped, row.Length, importance, effort), decoded);
                return Error(clamped, decoded, importance);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void Constant_rows_come_back(string name, bool hasImportance)
    {
        BlockType type = BlockData.Block(name);
        float[] ones = hasImportance ? [.. Enumerable.Repeat(1f, type.ValuesPerBlock)] : [];
        float[] decoded = new float[type.ValuesPerBlock];
        foreach (float constant in new[] { 0, 0.3f, -0.3f, 1, -7, 1000, 0.001f, -0.001f })
        {
            foreach (Effort effort in Searched)
            {
                type.Decode(BlockData.Encode(type, [.. Enumerable.Repeat(constant, decoded.Length)], decoded.Length, ones, effort), decoded);
                foreach (float value in decoded) Assert.InRange(value, constant - MathF.Abs(constant / 400), constant + MathF.Abs(constant / 400));
            }
        }
    }

    /// <summary>Sub-blocks whose importance is all zero keep a line of their own.</summary>
    [Theory]
    [InlineData("Q4_1")]
    [InlineData("Q5_1")]
    [InlineData("Q2_K")]
    [InlineData("Q4_K")]
    [InlineData("Q5_K")]
    public void Values_without_importance_are_still_stored(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(512);
        float[] importance = [.. BlockData.Importance().Select((weight, i) => i % 64 < 32 ? 0 : weight)];
        float[] decoded = new float[values.Length];
        double energy = Error(values, decoded, []);
        foreach (Effort effort in Searched)
        {
            type.Decode(BlockData.Encode(type, values, 512, importance, effort), decoded);
            Assert.InRange(Error(values, decoded, []) / energy, 0, name == "Q2_K" ? 0.3 : 0.03);
        }
    }

    private static double Error(float[] values, float[] decoded, float[] importance)
    {
        double sum = 0;
        for (int i = 0; i < values.Length; i++) sum += (importance.Length == 0 ? 1 : importance[i % importance.Length]) * Math.Pow((double)values[i] - decoded[i], 2);
        return sum;
    }
}
