using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class Qwen2ConfigTests
{
    [Fact]
    public void AbsentKeysHaveTheDefaultsOfTheClass()
    {
        Qwen2Config dense = Parse("""{"architectures": ["Qwen2ForCausalLM"]}""");
        Assert.Equal((151936, 4096, 22016, 32, 32, 32, 128), (dense.VocabSize, dense.HiddenSize, dense.IntermediateSize, dense.NumHiddenLayers, dense.NumAttentionHeads, dense.NumKeyValueHeads, dense.HeadDim));
        Assert.Equal((32768, 1e-6, false, 10000d, false, 4096, 28), (dense.MaxPositionEmbeddings, dense.RmsNormEps, dense.TieWordEmbeddings, dense.RopeTheta, dense.UseSlidingWindow, dense.SlidingWindow, dense.MaxWindowLayers));
        Assert.Equal("qwen2", dense.GgufArchitecture);

        Qwen2Config moe = Parse("""{"model_type": "qwen2_moe"}""");
        Assert.Equal((2048, 5632, 24, 16, 16, 128), (moe.HiddenSize, moe.IntermediateSize, moe.NumHiddenLayers, moe.NumAttentionHeads, moe.NumKeyValueHeads, moe.HeadDim));
        Assert.Equal((1408, 5632, 4, 60, false, 1), (moe.MoeIntermediateSize, moe.SharedExpertIntermediateSize, moe.NumExpertsPerTok, moe.NumExperts, moe.NormTopkProb, moe.DecoderSparseStep));
        Assert.True(moe.QkvBias);
        Assert.Equal("qwen2moe", moe.GgufArchitecture);
    }

    [Fact]
    public void NullKeyValueHeadsMeansOneForEachHead() =>
        Assert.Equal(8, Parse("""{"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": null}""").NumKeyValueHeads);

    [Theory]
    [InlineData("\"rope_theta\": 5e5", null, 500000)]
    [InlineData("\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1000000.0}", null, 1e6)]
    [InlineData("\"rope_parameters\": {\"rope_type\": \"linear\", \"rope_theta\": 7, \"factor\": 2}", RopeScalingType.Linear, 7)]
    [InlineData("\"rope_theta\": 9, \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}", RopeScalingType.Dynamic, 9)]
    [InlineData("\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 32768}", RopeScalingType.Yarn, 10000)]
    public void RopeIsReadFromEitherSpelling(string keys, RopeScalingType? type, double theta)
    {
        Qwen2Config config = Parse($"{{\"model_type\": \"qwen2\", {keys}}}");
        Assert.Equal(type, config.RopeScaling?.Type);
        Assert.Equal(theta, config.RopeTheta);
        if (type == RopeScalingType.Yarn) Assert.Equal(new RopeScaling(RopeScalingType.Yarn, 4) { OriginalMaxPositionEmbeddings = 32768 }, config.RopeScaling);
    }

    [Theory]
    [InlineData("Qwen2VLForConditionalGeneration", "vision-language")]
    [InlineData("Qwen2_5_VLForConditionalGeneration", "vision-language")]
    [InlineData("Qwen2AudioForConditionalGeneration", "audio-language")]
    [InlineData("Qwen3ForCausalLM", "another architecture")]
    [InlineData("QWenLMHeadModel", "the first Qwen")]
    [InlineData("Qwen2ForSequenceClassification", "another head")]
    [InlineData("LlamaForCausalLM", "LlamaForCausalLM")]
    public void OtherArchitecturesAreRefusedByName(string architecture, string what)
    {
        QuantException error = Assert.Throws<QuantException>(() => Parse($"{{\"architectures\": [\"{architecture}\"]}}"));
        Assert.Equal(ErrorKind.Unsupported, error.Kind);
        Assert.Contains(architecture, error.Message);
        Assert.Contains(what, error.Message);
        Assert.Contains("Qwen2ForCausalLM or Qwen2MoeForCausalLM", error.Message);
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("{\"architectures\": [\"Qwen2ForCausalLM\"], \"hidden_act\": \"gelu\"}")]
    public void WhatIsNotSupportedIsRefused(string json) => Assert.Equal(ErrorKind.Unsupported, Assert.Throws<QuantException>(() => Parse(json)).Kind);

    [Theory]
    [InlineData("""{"model_type": "qwen2", "torch_dtype": "bfloat16", "eos_token_id": [1, 2], "bos_token_id": 1, "pad_token_id": 3, "use_cache": false}""")]
    [InlineData("""{"model_type": "qwen2", "dtype": "float16", "eos_token_id": 151645, "head_dim": 64, "rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1.5, "truncate": false}}""")]
    [InlineData("""{"model_type": "qwen2", "num_hidden_layers": 2, "use_sliding_window": true, "layer_types": ["full_attention", "sliding_attention"], "rope_scaling": {"type": "linear", "factor": 2}}""")]
    [InlineData("""{"model_type": "qwen2", "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144}}""")]
    [InlineData("""{"model_type": "qwen2_moe", "mlp_only_layers": [3, 5], "qkv_bias": false, "norm_topk_prob": true, "decoder_sparse_step": 2, "tie_word_embeddings": true}""")]
    public void WrittenConfigurationsReadBackTheSame(string json)
    {
        Qwen2Config config = Parse(json);
        byte[] written = config.ToJson();
        Qwen2Config again = Qwen2Config.ParseJson(written, "config.json");
        Assert.Equal(written, again.ToJson());
        Assert.Equal(
            config with { LayerTypes = null, MlpOnlyLayers = [], EosTokenIds = [] },
            again with { LayerTypes = null, MlpOnlyLayers = [], EosTokenIds = [] });
        Assert.Equal(config.LayerTypes ?? [], again.LayerTypes ?? []);
        Assert.Equal(config.MlpOnlyLayers, again.MlpOnlyLayers);
        Assert.Equal(config.EosTokenIds, again.EosTokenIds);
    }

    [Fact]
    public void WindowsFollowTheRuleOfTheClass()
    {
        Qwen2Config dense = new() { NumHiddenLayers = 4, UseSlidingWindow = true, SlidingWindow = 7, MaxWindowLayers = 2 };
        Assert.Equal([null, null, 7, 7], Enumerable.Range(0, 4).Select(dense.WindowOf));
        Assert.Equal([7, null, null, null], Enumerable.Range(0, 4).Select((dense with { IsMoe = true }).WindowOf));
        Assert.Equal([null, 7, null, null], Enumerable.Range(0, 4).Select((dense with { LayerTypes = ["full_attention", "sliding_attention", "full_attention", "full_attention"] }).WindowOf));
        Assert.Equal([null, null, null, null], Enumerable.Range(0, 4).Select((dense with { UseSlidingWindow = false }).WindowOf));
    }

    // As the 1M models of Qwen2.5 have it, with the keys of an approximation that is not made here.
    [Fact]
    public void DualChunksAreRead()
    {
        Qwen2Config config = Parse("""{"model_type": "qwen2", "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144, "sparse_attention_enabled": true}}""");
        Assert.Equal(new DualChunkAttention(262144, 8192) { OriginalMaxPositionEmbeddings = 262144 }, config.DualChunkAttention);
        Assert.Equal(253952, config.DualChunkAttention!.Stride);
        Assert.Null(Parse("""{"model_type": "qwen2", "dual_chunk_attention_config": null}""").DualChunkAttention);
    }

    [Theory]
    [InlineData("32768,1024", 32768, 1024)]
    [InlineData("8192", 8192, 1024)]
    [InlineData("5,0", 5, 0)]
    public void DualChunksOfTheCommandLine(string text, int chunk, int local) => Assert.Equal(new DualChunkAttention(chunk, local), DualChunkAttention.Parse(text));

    [Theory]
    [InlineData("")]
    [InlineData("8,8")]
    [InlineData("0")]
    [InlineData("-5")]
    [InlineData("8,1,1")]
    [InlineData("8, 1")]
    [InlineData("99999999999")]
    public void OtherDualChunksAreRefused(string text) => Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => DualChunkAttention.Parse(text)).Kind);

    [Fact]
    public void SparseLayersFollowStepAndExceptions()
    {
        Qwen2Config config = new() { IsMoe = true, NumHiddenLayers = 6, DecoderSparseStep = 2, MlpOnlyLayers = [3] };
        Assert.Equal([false, true, false, false, false, true], Enumerable.Range(0, 6).Select(config.IsSparse));
        Assert.All(Enumerable.Range(0, 6), layer => Assert.False((config with { NumExperts = 0 }).IsSparse(layer)));
    }

    [Fact]
    public void NumbersFromElsewhereAreHeldToTheSameRules() =>
        Assert.Equal(ModelRules.Values, Assert.Throws<QuantException>(() => new Qwen2Config { NumKeyValueHeads = 5 }.Validated("model.gguf")).Rule);

    private static Qwen2Config Parse(string json) => Qwen2Config.ParseJson(Encoding.UTF8.GetBytes(json), "config.json");
}
