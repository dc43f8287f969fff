namespace Qwen2Quant.Model;

/// <summary>How the next token is chosen.</summary>
public sealed record SamplingOptions
{
    /// <summary>0 takes the most probable token.</summary>
    public double Temperature { get; init; }

    /// <summary>Only so many of the most probable tokens; 0 for all.</summary>
    public int TopK { get; init; }

    /// <summary>Only the most probable tokens whose probabilities sum to this (Holtzman et al., "nucleus sampling"); 1 for all.</summary>
    public double TopP { get; init; } = 1;

    /// <summary>Logits of tokens that occurred are divided by it when positive and multiplied when negative (Keskar et al., "CTRL"); 1 for none.</summary>
    public double RepetitionPenalty { get; init; } = 1;

    public ulong Seed { get; init; }

    /// <summary>Which option is out of range and what is allowed, by its name on the command line; null when all are sound.</summary>
    public string? Problem => this switch
    {
        { Temperature: not (>= 0 and <= double.MaxValue) } => "temperature must not be negative",
        { TopK: < 0 } => "top-k must not be negative",
        { TopP: not (> 0 and <= 1) } => "top-p must be above 0 and at most 1",
        { RepetitionPenalty: not (> 0 and <= double.MaxValue) } => "repetition-penalty must be above 0",
        _ => null,
    };

    /// <summary>What a generation_config.json asks for; greedy unless it samples.</summary>
    public static SamplingOptions From(GenerationConfig config, ulong seed) => new()
    {
        Temperature = config.DoSample == true ? config.Temperature ?? 1 : 0,
        TopK = config.DoSample == true ? config.TopK ?? 50 : 0,
        TopP = config.DoSample == true ? config.TopP ?? 1 : 1,
        RepetitionPenalty = config.RepetitionPenalty ?? 1,
        Seed = seed,
    };
}
