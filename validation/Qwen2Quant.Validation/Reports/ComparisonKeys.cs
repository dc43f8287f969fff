namespace Qwen2Quant.Validation;

/// <summary>A numeric key of <c>compare</c>'s JSON.</summary>
/// <param name="Name">Path from the root, with dots: <c>kld.p99</c>.</param>
public sealed record ComparisonKey(string Name, Func<ComparisonResult, double> Read);

/// <summary>The catalogue of numeric keys of <c>compare</c>'s JSON, in its order.</summary>
public static class ComparisonKeys
{
    public static IReadOnlyList<ComparisonKey> All { get; } =
    [
        new("base.perplexity", static result => result.Base.Perplexity),
        new("base.standard_error", static result => result.Base.StandardError),
        new("candidate.perplexity", static result => result.Candidate.Perplexity),
        new("candidate.standard_error", static result => result.Candidate.StandardError),
        new("perplexity_ratio", static result => result.PerplexityRatio),
        new("ln_perplexity_ratio", static result => result.LnPerplexityRatio),
        new("ln_perplexity_ratio_standard_error", static result => result.LnPerplexityRatioStandardError),
        new("mean_kld", static result => result.MeanKld),
        new("mean_kld_standard_error", static result => result.MeanKldStandardError),
        new("kld.p50", static result => result.Kld.P50),
        new("kld.p90", static result => result.Kld.P90),
        new("kld.p95", static result => result.Kld.P95),
        new("kld.p99", static result => result.Kld.P99),
        new("kld.p999", static result => result.Kld.P999),
        new("kld.max", static result => result.Kld.Max),
        new("top_token_agreement", static result => result.TopTokenAgreement),
        new("top_token_agreement_standard_error", static result => result.TopTokenAgreementStandardError),
        new("tokens", static result => result.Tokens),
        new("context", static result => result.Context),
        new("chunks", static result => result.Chunks),
        new("seconds", static result => result.Seconds),
    ];

    /// <summary>The key of that name, or null.</summary>
    public static ComparisonKey? Find(string name) => All.FirstOrDefault(key => key.Name == name);
}
