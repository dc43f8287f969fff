using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>The rules of a folder of safetensors files with their index, and of files that only carry the name.</summary>
public static class WeightFileRules
{
    public static readonly Rule IndexNamesPlainFiles = new("HF-56", "The index is a JSON object whose weight_map names plain files of its own folder");
    public static readonly Rule ShardsPresent = new("HF-57", "Every file that the weights need is there");
    public static readonly Rule IndexComplete = new("HF-58", "The index and the shards on disk name the same files and the same tensors");
    public static readonly Rule TensorInOneShard = new("HF-59", "A tensor lies in one shard only");
    public static readonly Rule TotalSizeUntrusted = new("HF-60", "A wrong total_size is reported and never relied upon");
    public static readonly Rule OneWayToRead = new("HF-61", "A folder holds one weights file or one index, not both");
    public static readonly Rule NotLfsPointer = new("HF-66", "A weights file is not a Git LFS pointer");
    public static readonly Rule NotText = new("HF-67", "A weights file is not a page of text, such as an HTML or JSON error");
    public static readonly Rule NotPickle = new("HF-68", "Weights are not a Python pickle: reading one executes it");
    public static readonly Rule FileUnchanged = new("HF-77", "A file does not change while it is in use");
    public static readonly Rule ShardNamesDiffer = new("HF-78", "Shard names differ by more than case");

    public static IReadOnlyList<Rule> All { get; } =
    [
        IndexNamesPlainFiles, ShardsPresent, IndexComplete, TensorInOneShard, TotalSizeUntrusted, OneWayToRead,
        NotLfsPointer, NotText, NotPickle, FileUnchanged, ShardNamesDiffer,
    ];

    /// <summary>Those of <see cref="All"/> that say what must be accepted: no folder can break them.</summary>
    public static IReadOnlyList<Rule> Permissions { get; } = [TotalSizeUntrusted];
}
