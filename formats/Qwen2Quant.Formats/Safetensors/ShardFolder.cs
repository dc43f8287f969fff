using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>Decides which files of a folder hold the weights (rules HF-56 to HF-58, HF-61, HF-68).</summary>
internal sealed class ShardFolder
{
    private const int MostListed = 100;
    private const string WeightSuffix = ".safetensors";

    private readonly IFileLayer _files;
    private readonly string _folder;
    private readonly string[] _names;

    public ShardFolder(IFileLayer files, string folder)
    {
        _files = files;
        _folder = folder;
        _names = [.. files.ListTyped(folder)];
    }

    private IEnumerable<string> WeightFiles => _names.Where(static name => name.EndsWith(WeightSuffix, StringComparison.Ordinal));

    /// <summary>The one index of the folder, or null and the one weights file.</summary>
    public (ShardIndex? Index, string? File) Find(ReadOptions options)
    {
        string[] indexes = [.. _names.Where(static name => name.EndsWith(ShardIndex.FileSuffix, StringComparison.Ordinal))];
        if (indexes.Length > 1) throw Fail(WeightFileRules.OneWayToRead, $"the folder holds several indexes: {Join(indexes)}", "Give the path of the one to use.");
        if (indexes.Length == 1)
        {
            ShardIndex index = ReadIndex(Path.Combine(_folder, indexes[0]), options);
            string[] singles = [.. Unnamed(index).Where(static name => PartCount(name) is null)];
            if (singles.Length == 0) return (index, null);
            throw Fail(WeightFileRules.OneWayToRead, $"the folder holds an index and files apart from it: {Join(singles)}", "Give the path of the file or of the index.");
        }

        string[] weights = [.. WeightFiles];
        if (weights.Length == 0) throw NoWeights();
        if (weights.FirstOrDefault(static name => PartCount(name) > 1) is { } part)
        {
            throw Fail(WeightFileRules.ShardsPresent, $"there is no index beside the shard '{TextEscape.Escape(part)}'", "Download model.safetensors.index.json, and all shards, too.");
        }

        if (weights.Length > 1) throw Fail(WeightFileRules.OneWayToRead, $"the folder holds several weights files and no index: {Join(weights)}", "Give the path of one file.");
        return (null, Path.Combine(_folder, weights[0]));
    }

    /// <summary>Reads an index and checks that exactly its shards are in the folder.</summary>
    public ShardIndex ReadIndex(string path, ReadOptions options)
    {
        ShardIndex index = ShardIndex.Parse(path, _files.ReadAllBytes(path, options.Limits.JsonFileBytes), options.Limits);
        HashSet<string> present = new(_names, StringComparer.Ordinal);
        string[] missing = [.. index.Shards.Where(shard => !present.Contains(shard) || !_files.FileExists(Path.Combine(_folder, shard)))];
        if (missing.Length > 0)
        {
            throw Fail(WeightFileRules.ShardsPresent, string.Create(CultureInfo.InvariantCulture, $"{missing.Length} of {index.Shards.Length} shards are missing: {Join(missing)}"), "Finish the download.");
        }

        string[] surplus = [.. Unnamed(index).Where(static name => PartCount(name) is not null)];
        if (surplus.Length == 0) return index;
        throw Fail(WeightFileRules.IndexComplete, $"the index does not name these shards: {Join(surplus)}", "Remove them, or restore the index that belongs to them.");
    }

    /// <summary>Names for a message: escaped, and a count instead of those beyond the first hundred.</summary>
    public static string Join(IReadOnlyCollection<string> names)
    {
        string shown = string.Join(", ", names.Take(MostListed).Select(TextEscape.Escape));
        return names.Count <= MostListed ? shown : string.Create(CultureInfo.InvariantCulture, $"{shown} and {names.Count - MostListed} more");
    }

    private IEnumerable<string> Unnamed(ShardIndex index) => WeightFiles.Except(index.Shards, StringComparer.Ordinal);

    /// <summary>M of a name <c>…-N-of-M.safetensors</c>, or null for other names.</summary>
    private static int? PartCount(string name)
    {
        ReadOnlySpan<char> stem = name.AsSpan(0, name.Length - WeightSuffix.Length);
        int of = stem.LastIndexOf("-of-");
        if (of < 0 || !int.TryParse(stem[(of + 4)..], NumberStyles.None, CultureInfo.InvariantCulture, out int count)) return null;
        ReadOnlySpan<char> before = stem[..of];
        ReadOnlySpan<char> part = before[(before.LastIndexOf('-') + 1)..];
        return part.Length < before.Length && int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out _) ? count : null;
    }

    private QuantException NoWeights()
    {
        string? pickle = _names.FirstOrDefault(static name =>
            (name.StartsWith("pytorch_model", StringComparison.Ordinal) && name.EndsWith(".bin", StringComparison.Ordinal))
            || name.EndsWith(".pt", StringComparison.Ordinal) || name.EndsWith(".pth", StringComparison.Ordinal));
        return pickle is not null
            ? WeightFilePrefix.Pickle(Path.Combine(_folder, pickle))
            : Fail(WeightFileRules.ShardsPresent, "the folder holds no .safetensors file", "Check the path, and that the download is finished.");
    }

    private QuantException Fail(Rule rule, string summary, string remedy) => new(ErrorKind.InvalidInput, summary)
    {
        Rule = rule,
        Path = _folder,
        Remedy = remedy,
    };
}
