using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class ForwardTests
{
    private static readonly Qwen2Config Dense = new()
    {
        VocabSize = 97, HiddenSize = 48, IntermediateSize = 70, NumHiddenLayers = 2, NumAttentionHeads = 6, NumKeyValueHeads = 3, HeadDim = 8, RopeTheta = 1000,
    };

    private static readonly Qwen2Config Mixed = Dense with
    {
        IsMoe = true, NumExperts = 5, NumExpertsPerTok = 2, MoeIntermediateSize = 20, SharedExpertIntermediateSize = 37, NumHiddenLayers = 3, DecoderSparseStep = 2, MlpOnlyLayers = [0],
    };

    public static TheoryData<string> Names => [.. Configs.Keys];

    internal static Dictionary<string, Qwen2Config> Configs { get; } = new()
    {
        ["grouped"] = Dense,
        ["tied"] = Dense with { TieWordEmbeddings = true },
        ["one key head"] = Dense with { NumKeyValueHeads = 1 },
        ["ungrouped"] = Dense with { NumKeyValueHeads = 6 },
        ["odd sizes"] = Dense with { VocabSize = 41, HiddenSize = 30, IntermediateSize = 33, NumAttentionHeads = 5, NumKeyValueHeads = 5, HeadDim = 6 },
        ["wide heads"] = Dense with { HiddenSize = 80, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 40 },
        ["head width of its own"] = Dense with { HeadDim = 10 },
        ["window"] = Dense with { UseSlidingWindow = true, SlidingWindow = 5, MaxWindowLayers = 1 },
        ["half a billion"] = Dense with { HiddenSize = 56, NumAttentionHeads = 14, NumKeyValueHeads = 2, HeadDim = 64, TieWordEmbeddings = true },
        ["one and a half billion"] = Dense with { HiddenSize = 40, NumAttentionHeads = 12, NumKeyValueHeads = 2, HeadDim = 128, TieWordEmbeddings = true, NumHiddenLayers = 1 },
        ["seven billion"] = Dense with { HiddenSize = 40, NumAttentionHeads = 28, NumKeyValueHeads = 4, HeadDim = 128, NumHiddenLayers = 1 },
        ["seventy-two billion"] = Dense with { HiddenSize = 40, NumAttentionHeads = 64, NumKeyValueHeads = 8, HeadDim = 128, NumHiddenLayers = 1 },
        ["window by layer types"] = Dense with { UseSlidingWindow = true, SlidingWindow = 7, MaxWindowLayers = 2, LayerTypes = ["sliding_attention", "full_attention"] },
        ["window not in use"] = Dense with { SlidingWindow = 5, MaxWindowLayers = 0 },
        ["linear"] = Dense with { RopeScaling = new RopeScaling(RopeScalingType.Linear, 3) },
        ["yarn"] = Dense with { HeadDim = 16, RopeScaling = new RopeScaling(RopeScalingType.Yarn, 4) { OriginalMaxPositionEmbeddings = 64, BetaFast = 8 } },
        ["yarn, factor given"] = Dense with { HeadDim = 16, MaxPositionEmbeddings = 256, RopeScaling = new RopeScaling(RopeScalingType.Yarn, 2) { AttentionFactor = 0.9 } },
        ["dual chunks"] = Dense with { DualChunkAttention = new DualChunkAttention(10, 3) },
        ["dual chunks without local tokens"] = Dense with { DualChunkAttention = new DualChunkAttention(5, 0), HeadDim = 10 },
        ["dual chunks, mostly local"] = Dense with { DualChunkAttention = new DualChunkAttention(10, 8) },
        ["dual chunks and temperature"] = Dense with { DualChunkAttention = new DualChunkAttention(12, 4) { OriginalMaxPositionEmbeddings = 12 } },
        ["dual chunks and yarn"] = Dense with { DualChunkAttention = new DualChunkAttention(12, 4), RopeScaling = new RopeScaling(RopeScalingType.Yarn, 4) { OriginalMaxPositionEmbeddings = 64 }, HeadDim = 16 },
        ["dual chunks and window"] = Dense with { DualChunkAttention = new DualChunkAttention(8, 2), UseSlidingWindow = true, SlidingWindow = 15, MaxWindowLayers = 1 },
        ["dual chunks beyond a tile"] = Dense with { DualChunkAttention = new DualChunkAttention(150, 20), NumHiddenLayers = 1 },
        ["experts"] = Mixed,
        ["experts in windows"] = Mixed with { UseSlidingWindow = true, SlidingWindow = 6, MaxWindowLayers = 3 },
        ["experts, dense layers between"] = Mixed with { DecoderSparseStep = 1, MlpOnlyLayers = [1], TieWordEmbeddings = true },
        ["experts normalized"] = Mixed with { NormTopkProb = true, DecoderSparseStep = 1, QkvBias = false },
    };

    [Theory]
    [MemberData(nameof(Names))]
    public void LogitsEqualTheReference(string name)
    {
        Qwen2Config config = Configs[name];
        MemorySource source = MemorySource.Random(config, 1);
        int[] tokens = Tokens(config, 29);
        float[] logits = Run(Qwen2Model.Load(config, source, new ForwardOptions { Threads = 2 }), tokens, [tokens.Length]);
        AssertLogits(new ReferenceForward(config, source).Logits(tokens), logits);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void CallsThreadsAndMemoryChangeNoBit(string name)
    {
        Qwen2Config config = Configs[name];
        MemorySource source = MemorySource.Random(config, 2);
        int[] tokens = Tokens(config, 300);
        float[] whole = Run(Qwen2Model.Load(config, source, new ForwardOptions { Threads = 1 }), tokens, [300]);
        Assert.Equal(whole, Run(Qwen2Model.Load(config, source, new ForwardOptions { Threads = 3 }), tokens, [1, 255, 2, 30, 1, 11]));

        Qwen2Model streaming = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 2, ResidentBytes = 0, BatchTokens = 77 });
        Assert.False(streaming.IsResident);
        Assert.Equal(whole, Run(streaming, tokens, [300]));
    }

    [Fact]
    public void FreshCachesChangeNoBit()
    {
        Qwen2Model model = Qwen2Model.Load(Dense, MemorySource.Random(Dense, 12), new ForwardOptions { Threads = 4 });
        int[] tokens = Tokens(Dense, 256);
        float[] expected = Run(model, tokens, [256]);
        for (int repeat = 0; repeat < 50; repeat++) Assert.Equal(expected, Run(model, tokens, [256]));
    }

    [Fact]
    public void TruncatedCacheContinuesAsIfNothingHadFollowed()
    {
        Qwen2Model model = Qwen2Model.Load(Dense, MemorySource.Random(Dense, 3), new ForwardOptions { Threads = 1 });
        int[] tokens = Tokens(Dense, 40);
        float[] expected = Run(model, tokens, [40]);
        KvCache cache = model.NewCache(60);
        float[] hidden = new float[60 * Dense.HiddenSize];
        model.Forward(tokens.AsSpan(0, 10), cache, hidden);
        model.Forward(Tokens(Dense, 50), cache, hidden.AsSpan());
        cache.Truncate(10);
        model.Forward(tokens.AsSpan(10), cache, hidden);
        float[] logits = new float[30 * Dense.VocabSize];
        model.Logits(hidden, 30, logits);
        Assert.Equal(expected.AsSpan(10 * Dense.VocabSize).ToArray(), logits);
    }

    [Theory]
    [InlineData("model.layers.1.mlp.down_proj.weight", "after the MLP of layer 1", "model.layers.1")]
    [InlineData("model.layers.0.self_attn.o_proj.weight", "after the attention of layer 0", "model.layers.0")]
    [InlineData("model.embed_tokens.weight", "after the embedding", "model.embed_tokens")]
    public void NonFiniteActivationsNameLayerAndToken(string tensor, string where, string named)
    {
        MemorySource sound = MemorySource.Random(Dense, 4);
        MemorySource source = MemorySource.Of(sound.Tensors.Select(entry =>
        {
            float[] values = sound.ReadAll(entry);
            if (entry.Name == tensor) values[5] = float.NaN;
            return (entry.Name, entry.Shape, values);
        }));
        Qwen2Model model = Qwen2Model.Load(Dense, source, new ForwardOptions { Threads = 1 });
        KvCache cache = model.NewCache(8);
        QuantException error = Assert.Throws<QuantException>(() => model.Forward([0, 0, 0], cache, new float[3 * Dense.HiddenSize]));
        Assert.Equal(ErrorKind.Numeric, error.Kind);
        Assert.Equal(named, error.Tensor);
        Assert.Contains(where, error.Message);
        Assert.Contains("token 0", error.Message);
        Assert.Equal(0, cache.Length);
    }

    [Fact]
    public void LargeFiniteActivationsAreNotMistaken()
    {
        MemorySource sound = MemorySource.Random(Dense, 5);
        MemorySource source = MemorySource.Of(sound.Tensors.Select(entry =>
        {
            float[] values = sound.ReadAll(entry);
            if (entry.Name == "model.embed_tokens.weight") values = Array.ConvertAll(values, value => value * 1e25f);
            return (entry.Name, entry.Shape, values);
        }));
        Qwen2Model model = Qwen2Model.Load(Dense, source, new ForwardOptions { Threads = 1 });
        float[] hidden = new float[Dense.HiddenSize];
        model.Forward([3], model.NewCache(1), hidden);
        Assert.All(hidden, value => Assert.True(float.IsFinite(value)));
    }

    [Fact]
    public void TokensBeyondTheVocabularyAndTheCacheAreRefused()
    {
        Qwen2Model model = Qwen2Model.Load(Dense, MemorySource.Random(Dense, 6), new ForwardOptions { Threads = 1 });
        float[] hidden = new float[9 * Dense.HiddenSize];
        Assert.Throws<QuantException>(() => model.Forward([Dense.VocabSize], model.NewCache(8), hidden));
        Assert.Throws<QuantException>(() => model.Forward([-1], model.NewCache(8), hidden));
        Assert.Equal(ErrorKind.Resource, Assert.Throws<QuantException>(() => model.Forward(new int[9], model.NewCache(8), hidden)).Kind);
    }

    [Theory]
    [InlineData(16)]
    [InlineData(29)]
    public void DynamicScalingFollowsTheLengthOfTheCall(int count)
    {
        Qwen2Config config = Dense with { RopeScaling = new RopeScaling(RopeScalingType.Dynamic, 4), MaxPositionEmbeddings = 16 };
        MemorySource source = MemorySource.Random(config, 7);
        int[] tokens = Tokens(config, count);
        // Batches within a call do not change what the call's length decides, nor does a longer text before it.
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 2, BatchTokens = 5 });
        Run(model, Tokens(config, 40), [40]);
        float[] logits = Run(model, tokens, [count]);
        AssertLogits(new ReferenceForward(config, source).Logits(tokens), logits);
        if (count <= 16) Assert.Equal(Run(Qwen2Model.Load(Dense, source, new ForwardOptions { Threads = 1 }), tokens, [count]), logits);
    }

    [Fact]
    public void DualChunksThatHoldTheTextChangeNoBit()
    {
        MemorySource source = MemorySource.Random(Dense, 8);
        int[] tokens = Tokens(Dense, 300);
        Qwen2Config chunked = Dense with { DualChunkAttention = new DualChunkAttention(310, 10) { OriginalMaxPositionEmbeddings = 300 } };
        ForwardOptions options = new() { Threads = 2 };
        float[] plain = Run(Qwen2Model.Load(Dense, source, options), tokens, [300]);
        Assert.Equal(plain, Run(Qwen2Model.Load(chunked, source, options), tokens, [300]));

        Qwen2Config smaller = chunked with { DualChunkAttention = new DualChunkAttention(309, 10) };
        float[] cut = Run(Qwen2Model.Load(smaller, source, options), tokens, [300]);
        Assert.Equal(plain.AsSpan(0, 299 * Dense.VocabSize).ToArray(), cut.AsSpan(0, 299 * Dense.VocabSize).ToArray());
        Assert.NotEqual(plain, cut);
    }

    [Theory]
    [InlineData("plain")]
    [InlineData("yarn")]
    [InlineData("dual chunks")]
    public void LatePositionsEqualTheReference(string kind)
    {
        const int Count = 41_000, Last = 3;
        Qwen2Config config = new()
        {
            VocabSize = 31, HiddenSize = 8, IntermediateSize = 8, NumHiddenLayers = 1, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 8, RopeTheta = 1e6,
            RopeScaling = kind == "yarn" ? new RopeScaling(RopeScalingType.Yarn, 4) { OriginalMaxPositionEmbeddings = 32768 } : null,
            DualChunkAttention = kind == "dual chunks" ? new DualChunkAttention(16384, 1000) : null,
        };
        MemorySource source = MemorySource.Random(config, 9);
        int[] tokens = Tokens(config, Count);
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions());
        float[] hidden = new float[Count * config.HiddenSize];
        model.Forward(tokens, model.NewCache(Count), hidden);
        float[] logits = new float[Last * config.VocabSize];
        model.Logits(hidden.AsSpan((Count - Last) * config.HiddenSize), Last, logits);
        AssertLogits(new ReferenceForward(config, source) { FirstQuery = Count - Last }.Logits(tokens)[^Last..], logits);
    }

    private static void AssertLogits(double[][] expected, float[] logits)
    {
        int width = expected[0].Length;
        Assert.Equal(expected.Length * width, logits.Length);
        for (int i = 0; i < logits.Length; i++) Assert.Equal(expected[i / width][i % width], logits[i], 1e-4);
    }

    internal static int[] Tokens(Qwen2Config config, int count)
    {
        Random random = new(11);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(config.VocabSize))];
    }

    internal static float[] Run(Qwen2Model model, int[] tokens, int[] calls)
    {
        Assert.Equal(tokens.Length, calls.Sum());
        KvCache cache = model.NewCache(tokens.Length);
        float[] hidden = new float[tokens.Length * model.Config.HiddenSize];
        int first = 0;
        foreach (int count in calls)
        {
            model.Forward(tokens.AsSpan(first, count), cache, hidden.AsSpan(first * model.Config.HiddenSize));
            first += count;
            Assert.Equal(first, cache.Length);
        }

        float[] logits = new float[tokens.Length * model.Config.VocabSize];
        model.Logits(hidden, tokens.Length, logits);
        return logits;
    }
}
