using System.Text.Json.Serialization;

namespace Qwen2Quant.Validation;

/// <summary>Which positions of a window are scored.</summary>
public enum ScoringProtocol
{
    /// <summary>llama-perplexity's: logits at positions <c>context/2</c> to <c>context - 2</c>; the text must fill two windows.</summary>
    [JsonStringEnumMemberName("llama")]
    Llama,

    /// <summary>Every token but the first of each window is predicted: logits at positions 0 to <c>context - 2</c>.</summary>
    [JsonStringEnumMemberName("full")]
    Full,
}

/// <summary>Which windows a limit on their number takes.</summary>
public enum WindowSampling
{
    /// <summary>From the start of the text, as llama-perplexity does.</summary>
    [JsonStringEnumMemberName("first")]
    First,

    /// <summary>Evenly over the text: number i of k is window <c>i * n / k</c> of its n whole ones.</summary>
    [JsonStringEnumMemberName("spread")]
    Spread,
}

/// <summary>How a text is cut into windows; the defaults are llama-perplexity's.</summary>
public sealed record WindowOptions
{
    /// <summary>Tokens of one window.</summary>
    public int Context { get; init; } = 512;

    /// <summary>Windows at most; null takes all.</summary>
    public int? Chunks { get; init; }

    public ScoringProtocol Protocol { get; init; } = ScoringProtocol.Llama;

    public WindowSampling Sampling { get; init; } = WindowSampling.First;

    /// <summary>
    /// The token that replaces the first one of each window when the model reads it, for tokenizers that add one; it is never a target.
    /// Qwen2's adds none.
    /// </summary>
    public int? BeginToken { get; init; }
}
