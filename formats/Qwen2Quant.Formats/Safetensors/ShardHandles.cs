using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// Positional reads over many files with few descriptors: a file is opened when it is needed, and the one that rested longest is
/// closed for it. Thread-safe; a file that was replaced between two openings is refused.
/// </summary>
internal sealed class ShardHandles : IDisposable
{
    /// <summary>Few enough for a descriptor limit of 64: the runtime itself holds two for each assembly when it is not compiled ahead of time.</summary>
    public const int MostOpen = 8;

    private readonly object _gate = new();
    private readonly IFileLayer _files;
    private readonly Shard[] _shards;
    private int _openCount;
    private long _clock;
    private bool _disposed;

    public ShardHandles(IFileLayer files, IEnumerable<string> paths)
    {
        _files = files;
        _shards = [.. paths.Select(path => new Shard(path, files.IdentifyTyped(path)))];
    }

    private sealed class Shard(string path, FileIdentity identity)
    {
        public string Path { get; } = path;
        public FileIdentity Identity { get; } = identity;
        public IReadFile? File { get; set; }
        public int Readers { get; set; }
        public long LastUse { get; set; }
    }

    /// <summary>Calls <paramref name="use"/> with the open file; it stays open until the call returns.</summary>
    public T Use<T>(int shard, Func<IReadFile, T> use)
    {
        IReadFile file = Acquire(shard);
        try
        {
            return use(file);
        }
        finally
        {
            Release(shard);
        }
    }

    public void Read(int shard, long byteOffset, Span<byte> destination)
    {
        IReadFile file = Acquire(shard);
        try
        {
            file.ReadExactly(byteOffset, destination);
        }
        finally
        {
            Release(shard);
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            foreach (Shard shard in _shards) Close(shard);
            Monitor.PulseAll(_gate);
        }
    }

    private IReadFile Acquire(int index)
    {
        lock (_gate)
        {
            Shard shard = _shards[index];
            while (shard.File is null && _openCount == MostOpen && LongestAtRest() is null) Monitor.Wait(_gate);
            ObjectDisposedException.ThrowIf(_disposed, this);
            shard.File ??= OpenInPlaceOfAnother(shard);
            shard.Readers++;
            shard.LastUse = ++_clock;
            return shard.File;
        }
    }

    private void Release(int index)
    {
        lock (_gate)
        {
            if (--_shards[index].Readers == 0) Monitor.PulseAll(_gate);
        }
    }

    private Shard? LongestAtRest() => _shards.Where(static shard => shard.File is not null && shard.Readers == 0).MinBy(static shard => shard.LastUse);

    private IReadFile OpenInPlaceOfAnother(Shard shard)
    {
        if (_openCount == MostOpen) Close(LongestAtRest()!);
        FileIdentity identity = _files.IdentifyTyped(shard.Path);
        if (identity != shard.Identity)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the file changed while it was in use")
            {
                Rule = WeightFileRules.FileUnchanged,
                Path = shard.Path,
                Found = $"{identity.Length} bytes of {identity.LastWriteUtc:O}",
                Expected = $"{shard.Identity.Length} bytes of {shard.Identity.LastWriteUtc:O}",
                Remedy = "Make sure that nothing writes to the model, and start again.",
            };
        }

        IReadFile file = _files.OpenTyped(shard.Path);
        _openCount++;
        return file;
    }

    private void Close(Shard shard)
    {
        if (shard.File is null) return;
        shard.File.Dispose();
        shard.File = null;
        _openCount--;
    }
}
