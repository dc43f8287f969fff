using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// The tensors of one safetensors file, or of the shards that an index names. All headers are read and checked when it is opened;
/// at most <see cref="ShardHandles.MostOpen"/> shards are open at a time. Thread-safe.
/// </summary>
public sealed class SafetensorsCheckpoint : ITensorSource
{
    private readonly IReadFile? _only;
    private readonly ShardHandles? _handles;
    private readonly ShardIndex? _index;

    private SafetensorsCheckpoint(IReadFile file, SafetensorsFile header)
    {
        _only = file;
        Files = [header];
        Tensors = header.Tensors;
    }

    private SafetensorsCheckpoint(ShardHandles handles, ShardIndex index, SafetensorsFile[] files)
    {
        _handles = handles;
        _index = index;
        Files = files;
        Tensors = [.. files.SelectMany(static file => file.Tensors)];
    }

    /// <summary>The files in the order of <see cref="TensorEntry.FileIndex"/>: shards by name.</summary>
    public IReadOnlyList<SafetensorsFile> Files { get; }

    /// <summary>All tensors, shard after shard, each by rising offset.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    /// <summary>Opens the weights of a folder: its one <c>.safetensors</c> file, or the shards of its index.</summary>
    /// <exception cref="QuantException">A rule of <see cref="SafetensorsRules"/> or <see cref="WeightFileRules"/> is broken, or a file cannot be read.</exception>
    public static SafetensorsCheckpoint Open(IFileLayer files, string folder, ReadOptions options)
    {
        (ShardIndex? index, string? file) = new ShardFolder(files, folder).Find(options);
        return index is null ? OpenFile(files, file!, options) : OpenShards(files, folder, index, options);
    }

    /// <summary>Opens the shards of the index at <paramref name="indexPath"/>, whatever single file lies beside it.</summary>
    /// <exception cref="QuantException">As for <see cref="Open"/>.</exception>
    public static SafetensorsCheckpoint OpenIndex(IFileLayer files, string indexPath, ReadOptions options)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(indexPath))!;
        return OpenShards(files, folder, new ShardFolder(files, folder).ReadIndex(indexPath, options), options);
    }

    /// <summary>Opens one <c>.safetensors</c> file.</summary>
    /// <exception cref="QuantException">As for <see cref="Open"/>.</exception>
    public static SafetensorsCheckpoint OpenFile(IFileLayer files, string path, ReadOptions options)
    {
        IReadFile file = files.OpenTyped(path);
        try
        {
            return FromFile(file, options);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Reads an open file or one in memory, which the checkpoint then owns; when this throws it stays the caller's.</summary>
    /// <exception cref="QuantException">As for <see cref="Open"/>.</exception>
    public static SafetensorsCheckpoint FromFile(IReadFile file, ReadOptions options) => new(file, SafetensorsFile.Open(file, options));

    public TensorEntry? Find(string name)
    {
        if (_index is null) return Files[0].Find(name);
        return _index.ShardOf.TryGetValue(name, out int shard) ? Files[shard].Find(name) : null;
    }

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(byteOffset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(byteOffset, entry.ByteLength - destination.Length);
        if (destination.IsEmpty) return;
        if (_only is not null) _only.ReadExactly(entry.ByteOffset + byteOffset, destination);
        else _handles!.Read(entry.FileIndex, entry.ByteOffset + byteOffset, destination);
    }

    public void Dispose()
    {
        _only?.Dispose();
        _handles?.Dispose();
    }

    private static SafetensorsCheckpoint OpenShards(IFileLayer files, string folder, ShardIndex index, ReadOptions options)
    {
        ShardHandles handles = new(files, index.Shards.Select(shard => Path.Combine(folder, shard)));
        try
        {
            SafetensorsFile[] shards = new SafetensorsFile[index.Shards.Length];
            for (int i = 0; i < shards.Length; i++) shards[i] = handles.Use(i, file => SafetensorsFile.Open(file, options, i));
            CheckAgainstIndex(shards, index);
            ReportTotalSize(shards, index, options.Events);
            return new SafetensorsCheckpoint(handles, index, shards);
        }
        catch
        {
            handles.Dispose();
            throw;
        }
    }

    private static void CheckAgainstIndex(SafetensorsFile[] shards, ShardIndex index)
    {
        Dictionary<string, int> foundIn = new(StringComparer.Ordinal);
        List<string> unmapped = [];
        foreach (TensorEntry entry in shards.SelectMany(static shard => shard.Tensors))
        {
            if (!foundIn.TryAdd(entry.Name, entry.FileIndex))
            {
                throw new QuantException(ErrorKind.InvalidInput, "a tensor lies in two shards")
                {
                    Rule = WeightFileRules.TensorInOneShard,
                    Path = shards[entry.FileIndex].Path,
                    Tensor = entry.Name,
                    Found = $"also in {index.Shards[foundIn[entry.Name]]}",
                };
            }

            if (!index.ShardOf.TryGetValue(entry.Name, out int shard) || shard != entry.FileIndex) unmapped.Add(entry.Name);
        }

        string[] absent = [.. index.ShardOf.Keys.Where(name => !foundIn.ContainsKey(name))];
        if (unmapped.Count == 0 && absent.Length == 0) return;
        string summary = unmapped.Count > 0
            ? $"the shards hold tensors that the index omits or maps elsewhere: {ShardFolder.Join(unmapped)}"
            : $"the index maps tensors to shards that do not hold them: {ShardFolder.Join(absent)}";
        throw new QuantException(ErrorKind.InvalidInput, summary)
        {
            Rule = WeightFileRules.IndexComplete,
            Path = index.Path,
            Remedy = "Restore the index and the shards that belong together.",
        };
    }

    private static void ReportTotalSize(SafetensorsFile[] shards, ShardIndex index, IEventSink events)
    {
        string actual = shards.Sum(static shard => shard.ByteLength - shard.DataByteOffset).ToString(CultureInfo.InvariantCulture);
        if (index.TotalSize is null || index.TotalSize == actual) return;
        events.Report(new QuantEvent(
            "index-total-size",
            $"The index gives total_size {TextEscape.Escape(index.TotalSize)} where its tensors take {actual} bytes [{WeightFileRules.TotalSizeUntrusted.Id}]"));
    }
}
