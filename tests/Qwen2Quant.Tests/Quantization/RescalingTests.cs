using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Blocks;

namespace Qwen2Quant.Tests.Quantization;

/// <summary>Searches over statistics of inputs, against what they stand for.</summary>
public sealed class RescalingTests
{
    private const int Width = 256, RowCount = 48, TokenCount = 600;
    private static readonly WorkerTeam Team = new(2);

    [Theory]
    [InlineData("Q4_0", 0.9)]
    [InlineData("Q4_K", 1)] // whose searches weigh columns well enough by themselves here
    public void ScalesLowerTheErrorOfOutputsThatTheyStandFor(string name, double atMost)
    {
        ElementType type = BlockData.Block(name);
        float[] inputs = Activations(3), weights = BlockData.Values(RowCount * Width);
        GramMatrix gram = Gram(inputs);
        AwqScales found = new AwqSearch(new InputStatistics(gram, Team), Effort.Fast, Team).Find([new AwqConsumer(weights, 1, type)], []);
        Assert.InRange(found.LossAfter / found.LossBefore, 0, atMost);
        Assert.Equal(found.LossAfter, OutputError(found.Scales), found.LossAfter * 1e-3);
        Assert.Equal(found.LossBefore, OutputError([.. Enumerable.Repeat(1f, Width)]), found.LossBefore * 1e-3);

        // The sum over tokens and rows, without a Gram matrix.
        double OutputError(float[] scales)
        {
            float[] importance = [.. Enumerable.Range(0, Width).Select(i => (float)(gram[i, i] / scales[i] / scales[i]))];
            double sum = 0;
            for (int row = 0; row < RowCount; row++)
            {
                float[] scaled = [.. Enumerable.Range(0, Width).Select(i => weights[(row * Width) + i] * scales[i])], decoded = new float[Width];
                byte[] blocks = new byte[type.ByteCount(Width)];
                type.EncodeRow(scaled, importance, Effort.Fast, blocks);
                type.Decode(blocks, decoded);
                for (int token = 0; token < TokenCount; token++)
                {
                    double difference = 0;
                    for (int i = 0; i < Width; i++) difference += ((decoded[i] / scales[i]) - weights[(row * Width) + i]) * (double)inputs[(token * Width) + i];
                    sum += difference * difference;
                }
            }

            return sum;
        }
    }

    [Fact]
    public void InputsThatShareAScaleGetOne()
    {
        int[] channels = [.. Enumerable.Range(0, Width).Select(i => i % 64)];
        AwqScales found = new AwqSearch(new InputStatistics(Gram(Activations(4)), Team), Effort.Fast, Team).Find([new AwqConsumer(BlockData.Values(RowCount * Width), 1, BlockData.Block("Q4_0"))], channels);
        Assert.Equal(64, found.Scales.Length);
        Assert.All(found.Scales, scale => Assert.True(scale > 0 && float.IsFinite(scale)));
    }

    [Fact]
    public void ChannelsThatAreNeverActiveKeepTheirScale()
    {
        float[] inputs = Activations(5);
        for (int token = 0; token < TokenCount; token++) inputs[(token * Width) + 7] = 0;
        AwqScales found = new AwqSearch(new InputStatistics(Gram(inputs), Team), Effort.Fast, Team).Find([new AwqConsumer(BlockData.Values(RowCount * Width), 1, BlockData.Block("Q4_0"))], []);
        Assert.NotEqual(0, found.Ratio);
        Assert.Equal(1, found.Scales[7]);
    }

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q3_K")]
    [InlineData("IQ4_NL")]
    public void ClippingNeverLosesUnderTheInputsOfABlock(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] weights = BlockData.Values(RowCount * Width);
        GramMatrix gram = Gram(Activations(6));
        ClipSearch search = new(gram, Team);
        byte[] Encode(bool clips)
        {
            byte[] bytes = new byte[type.ByteCount(weights.Length)];
            search.Encode(new RowSlab(name, 0, Width, weights), type, Effort.Fast, clips, bytes);
            return bytes;
        }

        byte[] rounded = Encode(false), clipped = Encode(true);
        Assert.Equal(BlockData.Encode(type, weights, Width, search.ColumnImportance.ToArray(), Effort.Fast), rounded);
        double[] before = BlockErrors(rounded), after = BlockErrors(clipped);
        for (int block = 0; block < before.Length; block++) Assert.True(after[block] <= before[block] * 1.0001, $"block {block}: {after[block]} above {before[block]}");
        Assert.NotEqual(rounded, clipped);

        double[] BlockErrors(byte[] bytes)
        {
            float[] decoded = new float[weights.Length];
            type.Decode(bytes, decoded);
            double[] errors = new double[weights.Length / type.ValuesPerBlock];
            for (int block = 0; block < errors.Length; block++)
            {
                int start = block * type.ValuesPerBlock, column = start % Width;
                for (int i = 0; i < type.ValuesPerBlock; i++)
                {
                    for (int j = 0; j < type.ValuesPerBlock; j++)
                    {
                        errors[block] += gram[column + i, column + j] * (double)(decoded[start + i] - weights[start + i]) * (decoded[start + j] - weights[start + j]);
                    }
                }
            }

            return errors;
        }
    }

    /// <summary>With as many tokens as channels and no damping, corrected weights give the original outputs again.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void CorrectedWeightsMakeUpForTheirInputs(bool permutes)
    {
        float[] originals = Activations(8), inputs = new float[originals.Length], weights = BlockData.Values(RowCount * Width);
        // Inputs are a linear map of the originals, so that there is a perfect answer.
        for (int token = 0; token < TokenCount; token++)
        {
            for (int i = 0; i < Width; i++) inputs[(token * Width) + i] = (0.9f * originals[(token * Width) + i]) + (0.05f * originals[(token * Width) + ((i + 1) % Width)]);
        }

        GramMatrix gram = Gram(inputs);
        using InputError error = new(Width);
        error.Add(inputs.AsSpan(0, 100 * Width), originals.AsSpan(0, 100 * Width), Team);
        error.Add(inputs.AsSpan(100 * Width), originals.AsSpan(100 * Width), Team);
        using GptqHessian hessian = new("w", gram, 1, new GptqOptions { Damping = 1e-7, Shrinkage = 0, PermutesColumns = permutes }, Team);
        float[] corrected = [.. weights], half = [.. weights], alone = [.. weights];
        error.Correct(corrected, hessian, 1, Team);
        error.Correct(half, hessian, 0.5, Team);
        error.Correct(alone, hessian, 1, new WorkerTeam(1));
        Assert.Equal(corrected, alone);
        (double before, double after, double square) = (0, 0, 0);
        for (int row = 0; row < RowCount; row++)
        {
            for (int token = 0; token < TokenCount; token++)
            {
                double wanted = Dot(weights, originals), was = Dot(weights, inputs), now = Dot(corrected, inputs);
                (before, after, square) = (before + ((was - wanted) * (was - wanted)), after + ((now - wanted) * (now - wanted)), square + (wanted * wanted));
                double Dot(float[] w, float[] x) => Enumerable.Range(0, Width).Sum(i => (double)w[(row * Width) + i] * x[(token * Width) + i]);
            }
        }

        Assert.InRange(before / square, 1e-3, 1);
        Assert.InRange(after / before, 0, 1e-3);
        for (int i = 0; i < weights.Length; i++) Assert.Equal((weights[i] + corrected[i]) / 2, half[i], 1e-5f);
    }

    [Fact]
    public void DividedSumsAreThoseOfDividedInputs()
    {
        float[] inputs = Activations(9), divisors = [.. Enumerable.Range(0, Width).Select(i => 0.5f + (i % 7))];
        GramMatrix gram = Gram(inputs);
        gram.DivideInputs(divisors);
        GramMatrix expected = Gram([.. inputs.Select((value, i) => value / divisors[i % Width])]);
        for (int i = 0; i < Width; i++)
        {
            for (int j = 0; j <= i; j++) Assert.Equal(expected[i, j], gram[i, j], 1e-4 * Math.Sqrt(expected[i, i] * expected[j, j]));
        }
    }

    private static GramMatrix Gram(float[] inputs)
    {
        GramMatrix gram = new(Width);
        gram.Add(inputs, TokenCount, Team);
        gram.Fold(Team);
        return gram;
    }

    /// <summary>Neighbours that resemble each other, and a few channels with a hundred times the power.</summary>
    private static float[] Activations(int seed)
    {
        Random random = new(seed);
        float[] inputs = new float[TokenCount * Width];
        for (int token = 0; token < TokenCount; token++)
        {
            float shared = 0;
            for (int i = 0; i < Width; i++)
            {
                shared = (0.6f * shared) + (float)(random.NextDouble() - 0.5);
                inputs[(token * Width) + i] = shared * (i % 37 == 5 ? 10 : 1);
            }
        }

        return inputs;
    }
}
