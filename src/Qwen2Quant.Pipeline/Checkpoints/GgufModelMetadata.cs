using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The configuration of a model in GGUF metadata, both ways: keys, types and order of mainline's converter.</summary>
internal static class GgufModelMetadata
{
    /// <summary>llama.cpp's default where <c>rope.freq_base</c> is missing.</summary>
    private const float DefaultFrequencyBase = 10000;

    /// <summary>Reads the configuration. Sizes that metadata do not hold are taken from the tensors.</summary>
    public static Qwen2Config ReadConfig(GgufMetadata metadata, ITensorSource tensors, string path)
    {
        if (!metadata.TryGetString("general.architecture", out string? architecture) || architecture is not ("qwen2" or "qwen2moe"))
        {
            throw new QuantException(ErrorKind.Unsupported, "the model is not a Qwen2")
            {
                Rule = PipelineRules.Architecture,
                Path = path,
                Tensor = "general.architecture",
                Found = architecture ?? "nothing",
                Expected = "qwen2 or qwen2moe",
            };
        }

        Reader reader = new(metadata, architecture, path);
        bool isMoe = architecture == "qwen2moe";
        int hiddenSize = reader.Required("embedding_length");
        int heads = reader.Required("attention.head_count");
        int vocabularySize = RowCount(tensors, "token_embd.weight", path);
        int feedForward = reader.Required("feed_forward_length");
        int expertCount = isMoe ? reader.Required("expert_count") : 0;
        int expertsUsed = isMoe ? reader.Required("expert_used_count") : 0;
        Qwen2Config config = new()
        {
            IsMoe = isMoe,
            VocabSize = vocabularySize,
            HiddenSize = hiddenSize,
            IntermediateSize = feedForward,
            NumHiddenLayers = reader.Required("block_count"),
            NumAttentionHeads = heads,
            NumKeyValueHeads = reader.Optional("attention.head_count_kv") ?? heads,
            HeadDim = reader.Optional("attention.key_length") ?? (heads > 0 ? hiddenSize / heads : 0),
            MaxPositionEmbeddings = reader.Required("context_length"),
            RmsNormEps = Shortest(reader.RequiredFloat("attention.layer_norm_rms_epsilon")),
            RopeTheta = Shortest(reader.OptionalFloat("rope.freq_base") ?? DefaultFrequencyBase),
            RopeScaling = ReadRopeScaling(reader),
            TieWordEmbeddings = tensors.Find("output.weight") is null,
            MaxWindowLayers = reader.Required("block_count"),
            NumExperts = expertCount,
            NumExpertsPerTok = expertsUsed,
            MoeIntermediateSize = isMoe ? reader.Optional("expert_feed_forward_length") ?? feedForward / Math.Max(1, expertsUsed) : 0,
            SharedExpertIntermediateSize = isMoe ? reader.Optional("expert_shared_feed_forward_length") ?? feedForward : 0,
            BosTokenId = TokenId(metadata, "bos"),
            EosTokenIds = TokenId(metadata, "eos") is { } eos ? [eos] : [],
            PadTokenId = TokenId(metadata, "padding"),
        };
        CheckBlockCount(config, tensors, path);
        return config.Validated(path);
    }

    /// <summary>Appends the keys of rows 10 to 21 of the converter's order; <paramref name="fileType"/> comes between them.</summary>
    public static void WriteConfig(GgufMetadata metadata, Qwen2Config config, uint fileType)
    {
        string prefix = config.GgufArchitecture + ".";
        Set("block_count", config.NumHiddenLayers);
        Set("context_length", config.MaxPositionEmbeddings);
        Set("embedding_length", config.HiddenSize);
        Set("feed_forward_length", config.IntermediateSize);
        Set("attention.head_count", config.NumAttentionHeads);
        Set("attention.head_count_kv", config.NumKeyValueHeads);
        if (config.RopeScaling is { Type: not RopeScalingType.Dynamic } scaling) WriteRopeScaling(metadata, prefix, config, scaling);
        SetFloat("rope.freq_base", config.RopeTheta);
        SetFloat("attention.layer_norm_rms_epsilon", config.RmsNormEps);
        if (config.IsMoe)
        {
            Set("expert_count", config.NumExperts);
            Set("expert_used_count", config.NumExpertsPerTok);
        }

        if (config.HeadDim * config.NumAttentionHeads != config.HiddenSize)
        {
            Set("attention.key_length", config.HeadDim);
            Set("attention.value_length", config.HeadDim);
        }

        metadata.Set("general.file_type", GgufValue.Scalar(fileType));
        if (config.IsMoe)
        {
            Set("expert_feed_forward_length", config.MoeIntermediateSize);
            Set("expert_shared_feed_forward_length", config.SharedExpertIntermediateSize);
        }

        void Set(string key, int value) => metadata.Set(prefix + key, GgufValue.Scalar((uint)value));

        void SetFloat(string key, double value) => metadata.Set(prefix + key, GgufValue.Scalar((float)value));
    }

    private static void WriteRopeScaling(GgufMetadata metadata, string prefix, Qwen2Config config, RopeScaling scaling)
    {
        metadata.Set(prefix + "rope.scaling.type", GgufValue.String(scaling.TypeName));
        metadata.Set(prefix + "rope.scaling.factor", GgufValue.Scalar((float)scaling.Factor));
        if (scaling.Type != RopeScalingType.Yarn) return;
        int original = scaling.OriginalMaxPositionEmbeddings ?? config.MaxPositionEmbeddings;
        metadata.Set(prefix + "rope.scaling.original_context_length", GgufValue.Scalar((uint)original));
        if (scaling.AttentionFactor is { } factor)
        {
            // The converter's key holds the factor; llama.cpp reads the other one, as what its own 0.1 ln(factor) + 1 is multiplied by.
            metadata.Set(prefix + "rope.scaling.yarn_attn_factor", GgufValue.Scalar((float)factor));
            metadata.Set(prefix + "rope.scaling.attn_factor", GgufValue.Scalar((float)(factor / scaling.DefaultAttentionFactor)));
        }

        RopeScaling defaults = new(scaling.Type, scaling.Factor);
        if (scaling.BetaFast != defaults.BetaFast) metadata.Set(prefix + "rope.scaling.yarn_beta_fast", GgufValue.Scalar((float)scaling.BetaFast));
        if (scaling.BetaSlow != defaults.BetaSlow) metadata.Set(prefix + "rope.scaling.yarn_beta_slow", GgufValue.Scalar((float)scaling.BetaSlow));
    }

    private static RopeScaling? ReadRopeScaling(Reader reader)
    {
        string? name = reader.OptionalString("rope.scaling.type");
        if (name is null or "none") return null;
        RopeScalingType type = name switch
        {
            "linear" => RopeScalingType.Linear,
            "yarn" => RopeScalingType.Yarn,
            _ => throw new QuantException(ErrorKind.Unsupported, "the rope scaling is unknown")
            {
                Rule = ModelRules.RopeScaling,
                Path = reader.Path,
                Found = name,
                Expected = "none, linear or yarn",
            },
        };
        RopeScaling scaling = new(type, Shortest(reader.OptionalFloat("rope.scaling.factor") ?? 1))
        {
            OriginalMaxPositionEmbeddings = reader.Optional("rope.scaling.original_context_length"),
            AttentionFactor = reader.OptionalFloat("rope.scaling.yarn_attn_factor"),
        };
        if (scaling.AttentionFactor is null && type == RopeScalingType.Yarn && reader.OptionalFloat("rope.scaling.attn_factor") is { } relative)
        {
            scaling = scaling with { AttentionFactor = relative * scaling.DefaultAttentionFactor };
        }

        if (reader.OptionalFloat("rope.scaling.yarn_beta_fast") is { } fast) scaling = scaling with { BetaFast = fast };
        if (reader.OptionalFloat("rope.scaling.yarn_beta_slow") is { } slow) scaling = scaling with { BetaSlow = slow };
        return scaling;
    }

    /// <summary>The double that prints as the float does: 1e-6 as a float is not 1e-6 as a double.</summary>
    private static double Shortest(float value) => double.Parse(value.ToString("R", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);

    private static int? TokenId(GgufMetadata metadata, string name) =>
        metadata.TryGetInteger($"tokenizer.ggml.{name}_token_id", out int id) ? id : null;

    private static int RowCount(ITensorSource tensors, string name, string path)
    {
        TensorEntry? entry = tensors.Find(name);
        if (entry is { Shape.Rank: 2 } && entry.Shape[0] <= int.MaxValue) return (int)entry.Shape[0];
        throw new QuantException(ErrorKind.InvalidInput, entry is null ? "a tensor is missing" : "a tensor has a wrong shape")
        {
            Rule = ModelRules.TensorSet,
            Path = path,
            Tensor = name,
            Found = entry?.Shape.ToString(),
            Expected = "[vocabulary, hidden]",
        };
    }

    private static void CheckBlockCount(Qwen2Config config, ITensorSource tensors, string path)
    {
        HashSet<string> blocks = [.. tensors.Tensors
            .Where(entry => entry.Name.StartsWith("blk.", StringComparison.Ordinal))
            .Select(entry => entry.Name.Split('.')[1])];
        if (blocks.Count == config.NumHiddenLayers) return;
        throw new QuantException(ErrorKind.InvalidInput, "the metadata contradict the tensors")
        {
            Rule = PipelineRules.MetadataAgrees,
            Path = path,
            Tensor = config.GgufArchitecture + ".block_count",
            Found = $"{config.NumHiddenLayers} in the metadata, {blocks.Count} blocks in the tensors",
        };
    }

    private sealed class Reader(GgufMetadata metadata, string architecture, string path)
    {
        public string Path { get; } = path;

        public int Required(string key) => Optional(key) ?? throw Missing(key);

        public int? Optional(string key) => metadata.TryGetInteger(Name(key), out int value) ? value : null;

        public float RequiredFloat(string key) => OptionalFloat(key) ?? throw Missing(key);

        public float? OptionalFloat(string key) => metadata.TryGetFloat(Name(key), out float value) ? value : null;

        public string? OptionalString(string key) => metadata.TryGetString(Name(key), out string? value) ? value : null;

        private string Name(string key) => $"{architecture}.{key}";

        private QuantException Missing(string key) => new(ErrorKind.InvalidInput, "metadata lack a key that the model needs")
        {
            Rule = PipelineRules.MetadataAgrees,
            Path = Path,
            Tensor = Name(key),
        };
    }
}
