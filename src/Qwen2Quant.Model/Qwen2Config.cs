using Qwen2Quant.Core;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model;

/// <summary>
/// config.json of Qwen2ForCausalLM and Qwen2MoeForCausalLM. Defaults are those of the classes in Transformers, which hold for keys that a file omits.
/// </summary>
public sealed record Qwen2Config
{
    /// <summary>True for Qwen2MoeForCausalLM; the properties of experts mean nothing otherwise.</summary>
    public bool IsMoe { get; init; }

    public int VocabSize { get; init; } = 151936;
    public int HiddenSize { get; init; } = 4096;
    public int IntermediateSize { get; init; } = 22016;
    public int NumHiddenLayers { get; init; } = 32;
    public int NumAttentionHeads { get; init; } = 32;
    public int NumKeyValueHeads { get; init; } = 32;

    /// <summary>Values of one head: <c>head_dim</c> where a file has it, else hidden size / heads.</summary>
    public int HeadDim { get; init; } = 128;

    public int MaxPositionEmbeddings { get; init; } = 32768;
    public double RmsNormEps { get; init; } = 1e-6;
    public bool TieWordEmbeddings { get; init; }
    public double RopeTheta { get; init; } = 10000;

    /// <summary>Null when rotary positions are not scaled.</summary>
    public RopeScaling? RopeScaling { get; init; }

    /// <summary><c>dual_chunk_attention_config</c>; null for attention by plain positions.</summary>
    public DualChunkAttention? DualChunkAttention { get; init; }

    public bool UseSlidingWindow { get; init; }

    /// <summary>Tokens that a layer with a window sees, its own included.</summary>
    public int SlidingWindow { get; init; } = 4096;

    public int MaxWindowLayers { get; init; } = 28;

    /// <summary><c>full_attention</c> or <c>sliding_attention</c> of each layer; null where the rule of the class decides.</summary>
    public IReadOnlyList<string>? LayerTypes { get; init; }

    /// <summary>Whether q, k and v have biases; only Qwen2MoE can say no.</summary>
    public bool QkvBias { get; init; } = true;

    public int MoeIntermediateSize { get; init; } = 1408;
    public int SharedExpertIntermediateSize { get; init; } = 5632;
    public int NumExperts { get; init; } = 60;
    public int NumExpertsPerTok { get; init; } = 4;
    public bool NormTopkProb { get; init; }
    public int DecoderSparseStep { get; init; } = 1;
    public IReadOnlyList<int> MlpOnlyLayers { get; init; } = [];
    public bool OutputRouterLogits { get; init; }
    public double RouterAuxLossCoef { get; init; } = 0.001;

    public double InitializerRange { get; init; } = 0.02;
    public double AttentionDropout { get; init; }
    public bool UseCache { get; init; } = true;
    public int? BosTokenId { get; init; }
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];
    public int? PadTokenId { get; init; }

    /// <summary><c>torch_dtype</c> or <c>dtype</c>: information about the file, never used to read it.</summary>
    public string? TorchDtype { get; init; }

    public string? TransformersVersion { get; init; }

    /// <summary><c>quant_method</c> of a checkpoint whose weights are packed; <c>mlx</c> for MLX's own key; null for plain weights.</summary>
    public string? QuantizationMethod { get; init; }

    /// <summary>Class name in <c>architectures</c>.</summary>
    public string Architecture => IsMoe ? "Qwen2MoeForCausalLM" : "Qwen2ForCausalLM";

    public string ModelType => IsMoe ? "qwen2_moe" : "qwen2";

    /// <summary><c>general.architecture</c> in GGUF.</summary>
    public string GgufArchitecture => IsMoe ? "qwen2moe" : "qwen2";

    /// <summary>Tokens of the longest text that the model is meant for: <c>max_position_embeddings</c>, or what the scaling of positions stretches the trained length to.</summary>
    public long UsableLength => RopeScaling is null
        ? MaxPositionEmbeddings
        : Math.Max(MaxPositionEmbeddings, (long)Math.Min(RopeScaling.Factor * (RopeScaling.OriginalMaxPositionEmbeddings ?? MaxPositionEmbeddings), int.MaxValue));

    /// <summary>Output channels of q, and inputs of o.</summary>
    public int QueryWidth => NumAttentionHeads * HeadDim;

    /// <summary>Output channels of k, and of v.</summary>
    public int KeyValueWidth => NumKeyValueHeads * HeadDim;

    /// <summary>Reads and validates config.json.</summary>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="Core.Errors.QuantException">HF-69 to HF-71, or an architecture that is not supported.</exception>
    public static Qwen2Config ParseJson(ReadOnlySpan<byte> utf8, string path) => ParseJson(utf8, path, Limits.Default);

    public static Qwen2Config ParseJson(ReadOnlySpan<byte> utf8, string path, Limits limits) =>
        Qwen2ConfigReader.Read(ConfigJson.Parse(utf8, path, limits, ModelRules.Json), path, limits);

    /// <summary>config.json of this model, UTF-8, keys in Transformers' order.</summary>
    public byte[] ToJson() => Qwen2ConfigWriter.Write(this);

    /// <summary>Checks numbers that came from elsewhere, such as the metadata of a GGUF, by the rules of config.json.</summary>
    /// <exception cref="Core.Errors.QuantException">HF-70.</exception>
    public Qwen2Config Validated(string path)
    {
        Qwen2ConfigChecks.Check(this, path, Limits.Default);
        return this;
    }

    /// <summary>Whether the MLP of a layer is a mixture of experts.</summary>
    public bool IsSparse(int layer) =>
        IsMoe && NumExperts > 0 && (layer + 1) % DecoderSparseStep == 0 && !MlpOnlyLayers.Contains(layer);

    /// <summary>Tokens that queries of a layer see, their own included; null for all.</summary>
    public int? WindowOf(int layer)
    {
        if (!UseSlidingWindow) return null;
        bool slides = LayerTypes is not null ? LayerTypes[layer] == "sliding_attention"
            : IsMoe ? layer % 2 == 0 && layer < MaxWindowLayers
            : layer >= MaxWindowLayers;
        return slides ? SlidingWindow : null;
    }
}
