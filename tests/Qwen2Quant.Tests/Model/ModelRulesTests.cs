using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

/// <summary>For each rule inputs that break only it, and inputs that just satisfy it.</summary>
public class ModelRulesTests
{
    private const string Base = "\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 9, \"intermediate_size\": 8, \"num_hidden_layers\": 1";
    private const string Moe = "\"architectures\": [\"Qwen2MoeForCausalLM\"], \"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"num_hidden_layers\": 2, \"num_experts\": 4";

    private static readonly Qwen2Config Tiny = new() { VocabSize = 5, HiddenSize = 4, IntermediateSize = 6, NumHiddenLayers = 1, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 2 };

    private static readonly List<(Rule Rule, bool Holds, string Name, Action Act)> Cases =
    [
        Json(ModelRules.Json, true, "nulls and nesting within the limit", $"{{{Base}, \"rope_scaling\": null, \"x\": {Nested(31)}}}"),
        Json(ModelRules.Json, true, "one key in two objects", $"{{{Base}, \"a\": {{\"k\": 1}}, \"b\": {{\"k\": 1}}}}"),
        Json(ModelRules.Json, false, "not JSON", "hello"),
        Json(ModelRules.Json, false, "empty", ""),
        Json(ModelRules.Json, false, "an array", "[]"),
        Json(ModelRules.Json, false, "cut short", $"{{{Base}"),
        Json(ModelRules.Json, false, "trailing text", $"{{{Base}}} x"),
        Json(ModelRules.Json, false, "trailing comma", $"{{{Base},}}"),
        Json(ModelRules.Json, false, "duplicate key", $"{{{Base}, \"hidden_size\": 64}}"),
        Json(ModelRules.Json, false, "duplicate key, escaped", $"{{{Base}, \"hidden\\u005fsize\": 64}}"),
        Json(ModelRules.Json, false, "duplicate key inside", $"{{{Base}, \"x\": [{{\"k\": 1, \"k\": 2}}]}}"),
        Json(ModelRules.Json, false, "NaN", $"{{{Base}, \"rms_norm_eps\": NaN}}"),
        Json(ModelRules.Json, false, "infinite number", $"{{{Base}, \"rms_norm_eps\": 1e999}}"),
        Json(ModelRules.Json, false, "comment", $"{{{Base} /* x */}}"),
        Json(ModelRules.Json, false, "too deep", $"{{{Base}, \"x\": {Nested(40)}}}"),
        Json(ModelRules.Json, false, "a fraction of a layer", $"{{{Base}, \"max_window_layers\": 1.5}}"),
        Json(ModelRules.Json, false, "a number in quotes", $"{{{Base}, \"rope_theta\": \"10000\"}}"),
        Json(ModelRules.Json, false, "above 32 bits", $"{{{Base}, \"max_position_embeddings\": 4294967296}}"),
        Json(ModelRules.Json, false, "half a surrogate pair", $"{{{Base}, \"torch_dtype\": \"\\ud800\"}}"),
        (ModelRules.Json, false, "bytes that are not UTF-8", () => Qwen2Config.ParseJson([.. "{\"x\": \""u8, 0xff, .. "\"}"u8], "config.json")),
        (ModelRules.Json, false, "too large", () => Qwen2Config.ParseJson(Encoding.UTF8.GetBytes($"{{{Base}}}"), "config.json", new Limits { JsonFileBytes = 10 })),

        Json(ModelRules.Values, true, "epsilon zero", $"{{{Base}, \"rms_norm_eps\": 0}}"),
        Json(ModelRules.Values, true, "heads of their own width", $"{{{Base.Replace("\"hidden_size\": 64", "\"hidden_size\": 65")}, \"head_dim\": 2}}"),
        Json(ModelRules.Values, true, "as many experts as are chosen", $"{{{Moe}, \"num_experts_per_tok\": 4}}"),
        Json(ModelRules.Values, false, "heads do not divide the width", $"{{{Base.Replace("\"hidden_size\": 64", "\"hidden_size\": 65")}}}"),
        Json(ModelRules.Values, false, "key heads do not divide heads", $"{{{Base.Replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")}}}"),
        Json(ModelRules.Values, false, "no heads", $"{{{Base.Replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 0")}}}"),
        Json(ModelRules.Values, false, "no layers", $"{{{Base.Replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 0")}}}"),
        Json(ModelRules.Values, false, "a billion layers", $"{{{Base.Replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1000000000")}}}"),
        Json(ModelRules.Values, false, "odd heads", $"{{{Base}, \"head_dim\": 3}}"),
        Json(ModelRules.Values, false, "negative epsilon", $"{{{Base}, \"rms_norm_eps\": -1e-9}}"),
        Json(ModelRules.Values, false, "theta zero", $"{{{Base}, \"rope_theta\": 0}}"),
        Json(ModelRules.Values, false, "negative vocabulary", $"{{{Base.Replace("\"vocab_size\": 9", "\"vocab_size\": -9")}}}"),
        Json(ModelRules.Values, false, "window of nothing", $"{{{Base}, \"use_sliding_window\": true, \"sliding_window\": 0}}"),
        Json(ModelRules.Values, false, "too few layer types", $"{{{Base}, \"layer_types\": []}}"),
        Json(ModelRules.Values, false, "unknown layer type", $"{{{Base}, \"layer_types\": [\"linear_attention\"]}}"),
        Json(ModelRules.Values, false, "more experts chosen than there are", $"{{{Moe}, \"num_experts_per_tok\": 5}}"),
        Json(ModelRules.Values, false, "sparse step zero", $"{{{Moe}, \"decoder_sparse_step\": 0}}"),
        Json(ModelRules.Values, false, "model type of the other class", $"{{{Base.Replace("\"qwen2\"", "\"qwen2_moe\"")}}}"),
        Json(ModelRules.Values, false, "shrinking scale", $"{{{Base}, \"rope_scaling\": {{\"type\": \"linear\", \"factor\": 0.5}}}}"),

        Json(ModelRules.Values, true, "dual chunks", $"{{{Base}, \"dual_chunk_attention_config\": {{\"chunk_size\": 64, \"local_size\": 0}}}}"),
        Json(ModelRules.Values, false, "dual chunks without a size", $"{{{Base}, \"dual_chunk_attention_config\": {{\"local_size\": 8}}}}"),
        Json(ModelRules.Values, false, "dual chunks of local tokens only", $"{{{Base}, \"dual_chunk_attention_config\": {{\"chunk_size\": 8, \"local_size\": 8}}}}"),
        Json(ModelRules.Values, false, "dual chunks with a negative local size", $"{{{Base}, \"dual_chunk_attention_config\": {{\"chunk_size\": 8, \"local_size\": -1}}}}"),
        Json(ModelRules.Values, false, "dual chunks and dynamic scaling", $"{{{Base}, \"rope_scaling\": {{\"type\": \"dynamic\", \"factor\": 2}}, \"dual_chunk_attention_config\": {{\"chunk_size\": 8, \"local_size\": 1}}}}"),
        Json(ModelRules.RopeScaling, true, "default", $"{{{Base}, \"rope_scaling\": {{\"rope_type\": \"default\"}}}}"),
        Json(ModelRules.RopeScaling, true, "yarn with all its keys", $"{{{Base}, \"rope_scaling\": {{\"type\": \"yarn\", \"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 32, \"attention_factor\": 1, \"beta_fast\": 32, \"beta_slow\": 1, \"truncate\": false, \"rope_theta\": 10000}}}}"),
        Json(ModelRules.RopeScaling, false, "longrope", $"{{{Base}, \"rope_scaling\": {{\"rope_type\": \"longrope\", \"factor\": 4}}}}"),
        Json(ModelRules.RopeScaling, false, "mrope", $"{{{Base}, \"rope_parameters\": {{\"type\": \"mrope\", \"mrope_section\": [1]}}}}"),
        Json(ModelRules.RopeScaling, false, "two types", $"{{{Base}, \"rope_scaling\": {{\"rope_type\": \"yarn\", \"type\": \"linear\", \"factor\": 4}}}}"),
        Json(ModelRules.RopeScaling, false, "no factor", $"{{{Base}, \"rope_scaling\": {{\"rope_type\": \"yarn\"}}}}"),
        Json(ModelRules.RopeScaling, false, "unknown key", $"{{{Base}, \"rope_scaling\": {{\"rope_type\": \"yarn\", \"factor\": 4, \"mscale\": 1}}}}"),
        Json(ModelRules.RopeScaling, false, "partial rotation", $"{{{Base}, \"rope_parameters\": {{\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}}}}"),

        (ModelRules.Tie, true, "tied without output", () => View(Tiny with { TieWordEmbeddings = true }, tensors => tensors)),
        (ModelRules.Tie, true, "tied with an equal output", () => View(Tiny with { TieWordEmbeddings = true }, tensors => [.. tensors, ("lm_head.weight", tensors[0].Shape, tensors[0].Values)])),
        (ModelRules.Tie, false, "tied with another output", () => View(Tiny with { TieWordEmbeddings = true }, tensors => [.. tensors, ("lm_head.weight", tensors[0].Shape, new float[20])])),
        (ModelRules.Tie, false, "untied without output", () => View(Tiny, tensors => [.. tensors.Where(tensor => tensor.Name != "lm_head.weight")])),

        (ModelRules.TensorSet, true, "all and a rotary buffer", () => View(Tiny, tensors => [.. tensors, ("model.layers.0.self_attn.rotary_emb.inv_freq", new Shape(1), [1])])),
        (ModelRules.TensorSet, false, "one bias missing", () => View(Tiny, tensors => [.. tensors.Where(tensor => tensor.Name != "model.layers.0.self_attn.k_proj.bias")])),
        (ModelRules.TensorSet, false, "surplus", () => View(Tiny, tensors => [.. tensors, ("model.layers.1.input_layernorm.weight", new Shape(4), new float[4])])),
        (ModelRules.TensorSet, false, "transposed", () => View(Tiny, tensors => [.. tensors.Select(tensor => tensor.Name.EndsWith("up_proj.weight", StringComparison.Ordinal) ? (tensor.Name, new Shape(4, 6), tensor.Values) : tensor)])),
    ];

    public static TheoryData<int> Indices => [.. Enumerable.Range(0, Cases.Count)];

    [Theory]
    [MemberData(nameof(Indices))]
    public void HoldsOrIsNamed(int index)
    {
        (Rule rule, bool holds, string name, Action act) = Cases[index];
        if (holds)
        {
            act();
            return;
        }

        QuantException error = Assert.Throws<QuantException>(act);
        Assert.True(rule == error.Rule, $"{name}: {error.Message}");
        Assert.NotNull(error.Path);
    }

    [Fact]
    public void EveryRuleHasBothAndItsOwnId()
    {
        foreach (Rule rule in ModelRules.All)
        {
            Assert.Contains(Cases, item => item.Rule == rule && item.Holds);
            Assert.Contains(Cases, item => item.Rule == rule && !item.Holds);
        }

        Assert.Equal(["HF-69", "HF-70", "HF-71", "HF-72", "HF-73"], ModelRules.All.Select(rule => rule.Id));
    }

    private static (Rule, bool, string, Action) Json(Rule rule, bool holds, string name, string json) =>
        (rule, holds, name, () => Qwen2Config.ParseJson(Encoding.UTF8.GetBytes(json), "config.json"));

    private static string Nested(int depth) => new string('[', depth) + new string(']', depth);

    private static void View(Qwen2Config config, Func<List<(string Name, Shape Shape, float[] Values)>, List<(string Name, Shape Shape, float[] Values)>> change)
    {
        MemorySource whole = MemorySource.Random(config, 1);
        List<(string, Shape, float[])> tensors = [.. whole.Tensors.Select(entry => (entry.Name, entry.Shape, whole.ReadAll(entry)))];
        using CanonicalView view = CanonicalView.Over(MemorySource.Of(change(tensors)), TensorCatalogue.For(config), "model.safetensors");
        Assert.Equal(TensorCatalogue.For(config).Tensors.Select(tensor => tensor.Name), view.Tensors.Select(tensor => tensor.Name));
    }
}
