using System.Text.Json.Serialization;

namespace Qwen2Quant.Validation;

/// <summary>What <c>compare</c> prints as JSON. Divergences are of the candidate from the base, in nats for each scored token.</summary>
/// <param name="PerplexityRatio">The candidate's perplexity over the base's.</param>
/// <param name="LnPerplexityRatioStandardError">Standard error of the logarithm of the ratio, from the paired losses.</param>
/// <param name="TopTokenAgreement">Share of positions, 0 to 1, where both give the highest logit to the same token (the first, of equal ones).</param>
/// <param name="Tokens">Tokens scored.</param>
/// <param name="Context">Tokens of one window.</param>
/// <param name="Chunks">Windows scored.</param>
/// <param name="Seconds">Wall-clock time of the run.</param>
/// <param name="WorstPositions">Positions of the largest divergence, largest first.</param>
/// <param name="Activations">Absent unless asked for.</param>
/// <param name="Generation">Absent unless asked for.</param>
public sealed record ComparisonResult(
    PerplexityFigure Base,
    PerplexityFigure Candidate,
    double PerplexityRatio,
    double LnPerplexityRatio,
    double LnPerplexityRatioStandardError,
    double MeanKld,
    double MeanKldStandardError,
    KldPercentiles Kld,
    double TopTokenAgreement,
    double TopTokenAgreementStandardError,
    long Tokens,
    int Context,
    int Chunks,
    ScoringProtocol Protocol,
    WindowSampling Sampling,
    double Seconds,
    IReadOnlyList<WorstPosition> WorstPositions,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ActivationComparison? Activations = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] GenerationComparison? Generation = null);

/// <summary>Percentiles of the divergence over the scored positions.</summary>
public sealed record KldPercentiles(double P50, double P90, double P95, double P99, double P999, double Max)
{
    internal static KldPercentiles From(List<double> divergences)
    {
        double[] ascending = [.. divergences];
        Array.Sort(ascending);
        return new KldPercentiles(
            Percentiles.Of(ascending, 0.50),
            Percentiles.Of(ascending, 0.90),
            Percentiles.Of(ascending, 0.95),
            Percentiles.Of(ascending, 0.99),
            Percentiles.Of(ascending, 0.999),
            ascending[^1]);
    }
}

/// <summary>A position where the two models disagree most.</summary>
/// <param name="Window">Number of the window in the text, from 0.</param>
/// <param name="Position">Index in the window of the last token read; the expected token follows it.</param>
/// <param name="TextBefore">The last tokens read, as text.</param>
/// <param name="TextAfter">The tokens after the expected one, as text; empty at a window's end.</param>
/// <param name="BaseTop">The base's most probable tokens, most probable first.</param>
/// <param name="CandidateTop">The candidate's most probable tokens, most probable first.</param>
public sealed record WorstPosition(
    int Window,
    int Position,
    double Kld,
    string TextBefore,
    ExpectedToken Expected,
    string TextAfter,
    IReadOnlyList<TokenProbability> BaseTop,
    IReadOnlyList<TokenProbability> CandidateTop);

/// <summary>The token that the text has, and what each model thought of it.</summary>
public sealed record ExpectedToken(int Id, string Text, double BaseProbability, double CandidateProbability);

/// <summary>A token and its probability.</summary>
public sealed record TokenProbability(int Id, string Text, double Probability);
