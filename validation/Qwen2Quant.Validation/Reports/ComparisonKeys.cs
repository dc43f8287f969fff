namespace Qwen2Quant.Validation;

/// <summary>A numeric key of <c>compare</c>'s JSON.</summary>
public sealed class ComparisonKey
{
    private readonly Func<ComparisonResult, double>? _ofText;
    private readonly Func<GenerationComparison, double>? _ofGeneration;

    private ComparisonKey(string name, Func<ComparisonResult, double>? ofText, Func<GenerationComparison, double>? ofGeneration) =>
        (Name, _ofText, _ofGeneration) = (name, ofText, ofGeneration);

    /// <summary>Path from the root, with dots: <c>kld.p99</c>.</summary>
    public string Name { get; }

    /// <summary>True for a figure of generated text, false for one of a text that is read.</summary>
    public bool IsOfGeneration => _ofGeneration is not null;

    /// <summary>The figure; null where it was not measured.</summary>
    public double? Read(ComparisonResult? text, GenerationComparison? generation) =>
        IsOfGeneration ? generation is null ? null : _ofGeneration!(generation) : text is null ? null : _ofText!(text);

    internal static ComparisonKey OfText(string name, Func<ComparisonResult, double> read) => new(name, read, null);

    internal static ComparisonKey OfGeneration(string name, Func<GenerationComparison, double> read) => new("generation." + name, null, read);
}

/// <summary>The catalogue of numeric keys of <c>compare</c>'s JSON, in its order.</summary>
public static class ComparisonKeys
{
    public static IReadOnlyList<ComparisonKey> All { get; } =
    [
        ComparisonKey.OfText("base.perplexity", static result => result.Base.Perplexity),
        ComparisonKey.OfText("base.standard_error", static result => result.Base.StandardError),
        ComparisonKey.OfText("candidate.perplexity", static result => result.Candidate.Perplexity),
        ComparisonKey.OfText("candidate.standard_error", static result => result.Candidate.StandardError),
        ComparisonKey.OfText("perplexity_ratio", static result => result.PerplexityRatio),
        ComparisonKey.OfText("ln_perplexity_ratio", static result => result.LnPerplexityRatio),
        ComparisonKey.OfText("ln_perplexity_ratio_standard_error", static result => result.LnPerplexityRatioStandardError),
        ComparisonKey.OfText("mean_kld", static result => result.MeanKld),
        ComparisonKey.OfText("mean_kld_standard_error", static result => result.MeanKldStandardError),
        ComparisonKey.OfText("kld.p50", static result => result.Kld.P50),
        ComparisonKey.OfText("kld.p90", static result => result.Kld.P90),
        ComparisonKey.OfText("kld.p95", static result => result.Kld.P95),
        ComparisonKey.OfText("kld.p99", static result => result.Kld.P99),
        ComparisonKey.OfText("kld.p999", static result => result.Kld.P999),
        ComparisonKey.OfText("kld.max", static result => result.Kld.Max),
        ComparisonKey.OfText("top_token_agreement", static result => result.TopTokenAgreement),
        ComparisonKey.OfText("top_token_agreement_standard_error", static result => result.TopTokenAgreementStandardError),
        ComparisonKey.OfText("tokens", static result => result.Tokens),
        ComparisonKey.OfText("context", static result => result.Context),
        ComparisonKey.OfText("chunks", static result => result.Chunks),
        ComparisonKey.OfText("seconds", static result => result.Seconds),
        ComparisonKey.OfGeneration("tokens", static result => result.Tokens),
        ComparisonKey.OfGeneration("mean_agreed_tokens", static result => result.MeanAgreedTokens),
        ComparisonKey.OfGeneration("median_agreed_tokens", static result => result.MedianAgreedTokens),
        ComparisonKey.OfGeneration("identical_share", static result => result.IdenticalShare),
        ComparisonKey.OfGeneration("seconds", static result => result.Seconds),
    ];

    /// <summary>The key of that name, or null.</summary>
    public static ComparisonKey? Find(string name) => All.FirstOrDefault(key => key.Name == name);
}
