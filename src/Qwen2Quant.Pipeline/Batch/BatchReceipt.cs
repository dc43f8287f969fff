using System.Text.Json.Serialization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>A file of a result.</summary>
/// <param name="Path">Relative to the manifest.</param>
public sealed record BatchFile(string Path, long Bytes, string Sha256);

/// <summary>The figures of an output that tables and plots show; the report beside the output has all.</summary>
public sealed record BatchMeasured(
    long Bytes, double BitsPerWeight, string? Method, double? Perplexity = null, double? PerplexityStandardError = null, double? BasePerplexity = null, double? PerplexityRatio = null, double? MeanKld = null, double? MeanKldStandardError = null,
    double? KldP99 = null, double? TopTokenAgreement = null)
{
    /// <summary>With what was measured on a text.</summary>
    internal BatchMeasured With(ComparisonResult measured) => this with
    {
        Perplexity = measured.Candidate.Perplexity, PerplexityStandardError = measured.Candidate.StandardError, BasePerplexity = measured.Base.Perplexity, PerplexityRatio = measured.PerplexityRatio,
        MeanKld = measured.MeanKld, MeanKldStandardError = measured.MeanKldStandardError, KldP99 = measured.Kld.P99, TopTokenAgreement = measured.TopTokenAgreement,
    };
}

/// <summary>Says that a task is done; written last.</summary>
/// <param name="Files">What it made that stays, with hashes.</param>
/// <param name="Worker">Host and process, for people.</param>
/// <param name="Broken">The limits that the output broke: it is kept under another name.</param>
public sealed record BatchReceipt(string Task, BatchStage Stage, IReadOnlyList<BatchFile> Files, double Seconds, string Worker, BatchMeasured? Measured = null, IReadOnlyList<string>? Broken = null)
{
    [JsonIgnore]
    public bool IsRejected => Broken is { Count: > 0 };
}

/// <summary>Says why a task cannot be done; until somebody asks for it, it is not tried again.</summary>
public sealed record BatchFailure(string Task, string Kind, string Message, string Worker);
