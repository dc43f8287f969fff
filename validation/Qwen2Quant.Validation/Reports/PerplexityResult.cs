using System.Text.Json.Serialization;

namespace Qwen2Quant.Validation;

/// <summary>What <c>perplexity</c> prints as JSON.</summary>
/// <param name="Tokens">Tokens scored.</param>
/// <param name="Context">Tokens of one window.</param>
/// <param name="Chunks">Windows scored.</param>
/// <param name="Seconds">Wall-clock time of the run.</param>
/// <param name="Activations">Absent unless asked for.</param>
public sealed record PerplexityResult(
    double Perplexity,
    double StandardError,
    long Tokens,
    int Context,
    int Chunks,
    ScoringProtocol Protocol,
    WindowSampling Sampling,
    double Seconds,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<ActivationMaximum>? Activations = null);
