using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class GeneratorTests
{
    private static readonly HashSet<int> None = [];

    [Fact]
    public void GreedyTakesTheLowestOfEqualLogits() => Assert.Equal(1, Sampler.Choose([0, 5, 5, -1], None, new SamplingOptions(), 0.9));

    [Fact]
    public void PenaltyDividesPositiveAndMultipliesNegativeLogits()
    {
        SamplingOptions options = new() { RepetitionPenalty = 2 };
        Assert.Equal(1, Sampler.Choose([4, 3, 1], new HashSet<int> { 0 }, options, 0));
        Assert.Equal(1, Sampler.Choose([-2, -3, -9], new HashSet<int> { 0 }, options, 0));
        Assert.Equal(0, Sampler.Choose([7, 3, 1], new HashSet<int> { 0 }, options, 0));
    }

    [Theory]
    [InlineData(0.0, 2)]
    [InlineData(0.49, 2)]
    [InlineData(0.51, 0)]
    [InlineData(0.79, 0)]
    [InlineData(0.81, 1)]
    [InlineData(0.999999, 1)]
    public void DrawsByProbability(double draw, int expected)
    {
        float[] logits = [MathF.Log(0.3f), MathF.Log(0.2f), MathF.Log(0.5f)];
        Assert.Equal(expected, Sampler.Choose(logits, None, new SamplingOptions { Temperature = 1 }, draw));
    }

    [Fact]
    public void TopKAndTopPCutTheTail()
    {
        float[] logits = [MathF.Log(0.3f), MathF.Log(0.2f), MathF.Log(0.5f)];
        Assert.Equal(0, Sampler.Choose(logits, None, new SamplingOptions { Temperature = 1, TopK = 2 }, 0.9999));
        Assert.Equal(0, Sampler.Choose(logits, None, new SamplingOptions { Temperature = 1, TopP = 0.6 }, 0.9999));
        Assert.Equal(2, Sampler.Choose(logits, None, new SamplingOptions { Temperature = 1, TopP = 0.4 }, 0.9999));
        Assert.Equal(2, Sampler.Choose(logits, None, new SamplingOptions { Temperature = 5, TopK = 1 }, 0.9999));
        Assert.Equal(2, Sampler.Choose(logits, None, new SamplingOptions { Temperature = 0.01 }, 0.9999));
    }

    [Fact]
    public void BadOptionsAndLogitsAreRefused()
    {
        Assert.Equal(ErrorKind.Numeric, Assert.Throws<QuantException>(() => Sampler.Choose([0, float.NaN], None, new SamplingOptions(), 0)).Kind);
        foreach (SamplingOptions options in new[]
        {
            new SamplingOptions { Temperature = -1 }, new SamplingOptions { Temperature = double.NaN }, new SamplingOptions { TopP = 0 },
            new SamplingOptions { TopP = 1.5 }, new SamplingOptions { TopK = -1 }, new SamplingOptions { RepetitionPenalty = 0 },
        })
        {
            Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Sampler.Choose([0, 1], None, options, 0)).Kind);
        }
    }

    // The first outputs of the generator for seed 1234567, as its authors' C code prints them.
    [Fact]
    public void SplitMixIsTheReference()
    {
        SplitMix64 random = new(1234567);
        Assert.Equal([6457827717110365317UL, 3203168211198807973UL, 9817491932198370423UL], [random.Next(), random.Next(), random.Next()]);
        Assert.InRange(random.NextDouble(), 0, 1 - 1e-16);
    }

    [Fact]
    public void StopsAtStopTokensAndRepeatsUnderOneSeed()
    {
        Qwen2Config config = new() { VocabSize = 50, HiddenSize = 16, IntermediateSize = 24, NumHiddenLayers = 1, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 8 };
        Qwen2Model model = Qwen2Model.Load(config, MemorySource.Random(config, 8), new ForwardOptions { Threads = 1 });
        SamplingOptions options = new() { Temperature = 1, Seed = 5 };
        int[] text = [.. Generator.Generate(model, [1, 2, 3], options, 20, None)];
        Assert.Equal(20, text.Length);
        Assert.Equal(text, Generator.Generate(model, [1, 2, 3], options, 20, None));
        Assert.NotEqual(text, Generator.Generate(model, [1, 2, 3], options with { Seed = 6 }, 20, None));
        int stop = text[7];
        Assert.Equal(text.TakeWhile(token => token != stop), Generator.Generate(model, [1, 2, 3], options, 20, new HashSet<int> { stop }));
        Assert.Throws<ArgumentException>(() => Generator.Generate(model, [], options, 1, None));
    }

    [Fact]
    public void GenerationConfigSetsTheOptions()
    {
        GenerationConfig config = GenerationConfig.ParseJson("""{"eos_token_id": [151645, 151643], "do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "pad_token_id": 151643, "bos_token_id": 151643, "max_new_tokens": 9}"""u8, "generation_config.json");
        Assert.Equal([151645, 151643], config.EosTokenIds);
        Assert.Equal((151643, 151643, 9), (config.BosTokenId, config.PadTokenId, config.MaxNewTokens));
        Assert.Equal(new SamplingOptions { Temperature = 0.7, TopK = 20, TopP = 0.8, RepetitionPenalty = 1.05, Seed = 3 }, SamplingOptions.From(config, 3));
        GenerationConfig greedy = GenerationConfig.ParseJson("""{"eos_token_id": 7, "do_sample": false, "temperature": 0.7}"""u8, "generation_config.json");
        Assert.Equal([7], greedy.EosTokenIds);
        Assert.Equal(new SamplingOptions(), SamplingOptions.From(greedy, 0));
        foreach (string bad in new[] { """{"top_p": 0}""", """{"temperature": -1}""", """{"repetition_penalty": 0}""", """{"eos_token_id": "x"}""", """{"top_k": -1}""", """{"eos_token_id": -5}""" })
        {
            Assert.Throws<QuantException>(() => GenerationConfig.ParseJson(System.Text.Encoding.UTF8.GetBytes(bad), "generation_config.json"));
        }
    }
}
