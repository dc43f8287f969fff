using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Pipeline;

/// <summary>Rules that only the whole can check: folders and caches, the agreement of metadata with tensors.</summary>
public static class PipelineRules
{
    public static readonly Rule Architecture = new("GG-52", "general.architecture is qwen2 or qwen2moe");
    public static readonly Rule MetadataAgrees = new("GG-53", "the metadata agree with the tensors");
    public static readonly Rule VocabularyAgrees = new("GG-54", "token lists are equally long and fit the embedding");
    public static readonly Rule CacheLinks = new("HF-62", "links of a cache snapshot stay inside the repository's blobs");
    public static readonly Rule CacheRevision = new("HF-63", "refs name a commit that is there");
    public static readonly Rule DownloadFinished = new("HF-64", "no download is under way");
    public static readonly Rule ModelId = new("HF-65", "a model id is org/name");
    public static readonly Rule SourceNotQuantized = new("HF-74", "the source is not quantized already, unless that is allowed");

    public static IReadOnlyList<Rule> All { get; } =
    [
        Architecture, MetadataAgrees, VocabularyAgrees, CacheLinks, CacheRevision, DownloadFinished, ModelId, SourceNotQuantized,
    ];
}
