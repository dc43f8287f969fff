namespace Qwen2Quant.Model;

public enum RopeScalingType
{
    /// <summary>Positions divided by the factor.</summary>
    Linear,

    /// <summary>The base grows with the length once it exceeds the trained one (NTK-aware).</summary>
    Dynamic,

    /// <summary>YaRN (Peng et al., 2023): high frequencies kept, low ones divided, and a ramp between.</summary>
    Yarn,
}

/// <summary>How a model's rotary frequencies are stretched beyond the trained length; keys as Hugging Face spells them.</summary>
public sealed record RopeScaling(RopeScalingType Type, double Factor)
{
    /// <summary>The trained length; null means the configuration's <c>max_position_embeddings</c>.</summary>
    public int? OriginalMaxPositionEmbeddings { get; init; }

    /// <summary>YaRN's factor on cosine and sine; null means <see cref="DefaultAttentionFactor"/>.</summary>
    public double? AttentionFactor { get; init; }

    /// <summary>0.1 ln(factor) + 1.</summary>
    public double DefaultAttentionFactor => (0.1 * Math.Log(Factor)) + 1;

    public double BetaFast { get; init; } = 32;
    public double BetaSlow { get; init; } = 1;

    /// <summary>Whether YaRN's ramp begins and ends at whole dimensions.</summary>
    public bool Truncate { get; init; } = true;

    /// <summary>Name in <c>rope_type</c> and in GGUF's <c>rope.scaling.type</c>.</summary>
    public string TypeName => Type switch
    {
        RopeScalingType.Linear => "linear",
        RopeScalingType.Dynamic => "dynamic",
        _ => "yarn",
    };
}
