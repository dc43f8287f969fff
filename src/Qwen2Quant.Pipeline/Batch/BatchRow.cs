namespace Qwen2Quant.Pipeline.Batch;

/// <summary>One item of a batch as its report shows it.</summary>
/// <param name="Model">The model's name; rows of one model make one section.</param>
/// <param name="Name">Name of the output.</param>
/// <param name="Scheme">As on the command line, <c>gguf:Q4_K_M</c>.</param>
/// <param name="State"><c>done</c>, <c>rejected</c>, <c>failed</c>, <c>running</c> or <c>waiting</c>.</param>
/// <param name="Bytes">Size of the output, or what it is planned to be.</param>
/// <param name="BasePerplexity">The source's on the same text.</param>
/// <param name="MeanKld">Mean KL divergence from the source in nats.</param>
/// <param name="KldP99">What 99 % of the positions' divergences stay below.</param>
/// <param name="TopTokenAgreement">Share of positions with the source's most likely token, 0 to 1.</param>
/// <param name="Method">How codes were chosen, or null.</param>
/// <param name="Message">Why the item failed or was rejected, or null.</param>
public sealed record BatchRow(
    string Model,
    string Name,
    string Scheme,
    string State,
    long Bytes,
    double? BitsPerWeight,
    double? Perplexity,
    double? BasePerplexity,
    double? PerplexityRatio,
    double? PerplexityStandardError,
    double? MeanKld,
    double? MeanKldStandardError,
    double? KldP99,
    double? TopTokenAgreement,
    double? Seconds,
    string? Method,
    string? Message)
{
    internal bool IsDone => State == "done";
}
