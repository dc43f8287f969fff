using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model;

/// <summary>config.json to <see cref="Qwen2Config"/>.</summary>
internal static class Qwen2ConfigReader
{
    private const string Supported = "Qwen2ForCausalLM or Qwen2MoeForCausalLM";

    // Families whose names resemble ours, and what sets them apart. The longest prefix that fits is named.
    private static readonly (string Prefix, string What)[] NearMisses =
    [
        ("Qwen2VL", "a vision-language model"),
        ("Qwen2_5_VL", "a vision-language model"),
        ("Qwen2_5Omni", "a speech and vision model"),
        ("Qwen2Audio", "an audio-language model"),
        ("Qwen2For", "a Qwen2 with another head than a language model's"),
        ("Qwen2Model", "a Qwen2 without its output head"),
        ("Qwen2MoeFor", "a Qwen2MoE with another head than a language model's"),
        ("Qwen3", "another architecture (it normalizes queries and keys)"),
        ("QWen", "the first Qwen, another architecture"),
    ];

    public static Qwen2Config Read(ConfigJson json, string path, Limits limits)
    {
        bool isMoe = ReadArchitecture(json, path);
        int hiddenSize = json.Integer("hidden_size", isMoe ? 2048 : 4096);
        int heads = json.Integer("num_attention_heads", isMoe ? 16 : 32);
        ConfigJson? ropeParameters = json.Object("rope_parameters");
        ConfigJson? ropeScaling = json.Object("rope_scaling");
        int? headDim = json.OptionalInteger("head_dim");
        if (headDim is null && (heads <= 0 || hiddenSize % heads != 0))
        {
            throw new QuantException(ErrorKind.InvalidInput, "the heads do not divide the width")
            {
                Rule = ModelRules.Values, Path = path, Found = $"hidden_size {hiddenSize}, num_attention_heads {heads}",
            };
        }

        Qwen2Config config = new()
        {
            IsMoe = isMoe,
            VocabSize = json.Integer("vocab_size", 151936),
            HiddenSize = hiddenSize,
            IntermediateSize = json.Integer("intermediate_size", isMoe ? 5632 : 22016),
            NumHiddenLayers = json.Integer("num_hidden_layers", isMoe ? 24 : 32),
            NumAttentionHeads = heads,
            NumKeyValueHeads = json.Has("num_key_value_heads") ? json.Integer("num_key_value_heads", 0) : DefaultKeyValueHeads(json, isMoe, heads),
            HeadDim = headDim ?? hiddenSize / heads,
            MaxPositionEmbeddings = json.Integer("max_position_embeddings", 32768),
            RmsNormEps = json.Number("rms_norm_eps", 1e-6),
            TieWordEmbeddings = json.Boolean("tie_word_embeddings", false),
            RopeTheta = ropeParameters?.OptionalNumber("rope_theta") ?? ropeScaling?.OptionalNumber("rope_theta") ?? json.Number("rope_theta", 10000),
            RopeScaling = ReadRopeScaling(ropeParameters ?? ropeScaling, path),
            DualChunkAttention = ReadDualChunks(json.Object("dual_chunk_attention_config"), path),
            QuantizationMethod = json.Object("quantization_config") is { } packed ? packed.Text("quant_method") ?? (json.Has("quantization") ? "mlx" : "unknown") : json.Has("quantization") ? "mlx" : null,
            UseSlidingWindow = json.Boolean("use_sliding_window", false),
            SlidingWindow = json.Integer("sliding_window", 4096),
            MaxWindowLayers = json.Integer("max_window_layers", 28),
            LayerTypes = json.Texts("layer_types"),
            QkvBias = !isMoe || json.Boolean("qkv_bias", true),
            MoeIntermediateSize = json.Integer("moe_intermediate_size", 1408),
            SharedExpertIntermediateSize = json.Integer("shared_expert_intermediate_size", 5632),
            NumExperts = json.Integer("num_experts", 60),
            NumExpertsPerTok = json.Integer("num_experts_per_tok", 4),
            NormTopkProb = json.Boolean("norm_topk_prob", false),
            DecoderSparseStep = json.Integer("decoder_sparse_step", 1),
            MlpOnlyLayers = json.Integers("mlp_only_layers") ?? [],
            OutputRouterLogits = json.Boolean("output_router_logits", false),
            RouterAuxLossCoef = json.Number("router_aux_loss_coef", 0.001),
            InitializerRange = json.Number("initializer_range", 0.02),
            AttentionDropout = json.Number("attention_dropout", 0),
            UseCache = json.Boolean("use_cache", true),
            BosTokenId = json.OptionalInteger("bos_token_id"),
            EosTokenIds = json.Integers("eos_token_id") ?? [],
            PadTokenId = json.OptionalInteger("pad_token_id"),
            TorchDtype = json.Text("dtype") ?? json.Text("torch_dtype"),
            TransformersVersion = json.Text("transformers_version"),
        };
        string activation = json.Text("hidden_act") ?? "silu";
        if (activation != "silu")
        {
            throw new QuantException(ErrorKind.Unsupported, "the activation function is not supported") { Path = path, Found = activation, Expected = "silu" };
        }

        Qwen2ConfigChecks.Check(config, path, limits);
        return config;
    }

    // The class default is a number; a key that is present and null means one for each head.
    private static int DefaultKeyValueHeads(ConfigJson json, bool isMoe, int heads) =>
        json.Keys.Contains("num_key_value_heads") ? heads : isMoe ? 16 : 32;

    private static bool ReadArchitecture(ConfigJson json, string path)
    {
        IReadOnlyList<string> architectures = json.Texts("architectures") ?? [];
        string? modelType = json.Text("model_type");
        bool? byName = architectures.Contains("Qwen2MoeForCausalLM") ? true : architectures.Contains("Qwen2ForCausalLM") ? false : null;
        bool? byType = modelType switch
        {
            "qwen2" => false,
            "qwen2_moe" => true,
            _ => null,
        };
        string found = architectures.Count > 0 ? string.Join(", ", architectures) : modelType is null ? "neither architectures nor model_type" : $"model_type {modelType}";
        if (architectures.Count == 0) byName = byType;
        if (byName is null) throw NotSupported(architectures.Count > 0 ? architectures[0] : modelType ?? "", found, path);
        if (modelType is not null && byType != byName)
        {
            throw new QuantException(ErrorKind.InvalidInput, "model_type contradicts the architecture")
            {
                Rule = ModelRules.Values, Path = path, Tensor = "model_type", Found = $"{modelType} with {found}", Expected = byName.Value ? "qwen2_moe" : "qwen2",
            };
        }

        return byName.Value;
    }

    private static QuantException NotSupported(string name, string found, string path)
    {
        string? what = NearMisses.Where(miss => name.StartsWith(miss.Prefix, StringComparison.OrdinalIgnoreCase))
            .OrderByDescending(miss => miss.Prefix.Length).Select(miss => miss.What).FirstOrDefault();
        return new QuantException(ErrorKind.Unsupported, "the architecture is not supported")
        {
            Path = path,
            Found = what is null ? found : $"{found}, {what}",
            Expected = Supported,
        };
    }

    private static RopeScaling? ReadRopeScaling(ConfigJson? json, string path)
    {
        if (json is null) return null;
        string type = json.Text("rope_type") ?? json.Text("type") ?? "default";
        RopeScalingType? known = type switch
        {
            "yarn" => RopeScalingType.Yarn,
            "linear" => RopeScalingType.Linear,
            "dynamic" => RopeScalingType.Dynamic,
            "default" or "none" => null,
            _ => throw Refused(path, $"type {type}", "default, linear, dynamic or yarn"),
        };
        if (json.Has("type") && json.Has("rope_type") && json.Text("type") != type) throw Refused(path, $"rope_type {type} with type {json.Text("type")}", "the same twice");
        foreach (string key in json.Keys)
        {
            bool used = key is "type" or "rope_type" or "rope_theta" or "partial_rotary_factor" || (known is not null && key is "factor" or "original_max_position_embeddings")
                || (known == RopeScalingType.Yarn && key is "attention_factor" or "beta_fast" or "beta_slow" or "truncate");
            if (!used) throw Refused(path, $"key {key} with type {type}", "no keys that the type does not use");
        }

        if (json.Number("partial_rotary_factor", 1) != 1) throw Refused(path, "a partial_rotary_factor other than 1", "1");
        if (known is null) return null;
        return new RopeScaling(known.Value, json.OptionalNumber("factor") ?? throw Refused(path, $"{type} without factor", "a factor"))
        {
            OriginalMaxPositionEmbeddings = json.OptionalInteger("original_max_position_embeddings"),
            AttentionFactor = json.OptionalNumber("attention_factor"),
            BetaFast = json.Number("beta_fast", 32),
            BetaSlow = json.Number("beta_slow", 1),
            Truncate = json.Boolean("truncate", true),
        };
    }

    private static DualChunkAttention? ReadDualChunks(ConfigJson? json, string path)
    {
        if (json is null) return null;
        return new DualChunkAttention(Size("chunk_size"), Size("local_size")) { OriginalMaxPositionEmbeddings = json.OptionalInteger("original_max_position_embeddings") };

        int Size(string key) => json.OptionalInteger(key) ?? throw new QuantException(ErrorKind.InvalidInput, "a size is missing")
        {
            Rule = ModelRules.Values, Path = path, Tensor = $"dual_chunk_attention_config.{key}", Expected = "a number of tokens",
        };
    }

    private static QuantException Refused(string path, string found, string expected) => new(ErrorKind.Unsupported, "the rope scaling is not known")
    {
        Rule = ModelRules.RopeScaling, Path = path, Found = found, Expected = expected,
    };
}
