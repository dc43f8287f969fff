using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>Files in memory, for readers only.</summary>
internal sealed class MemoryFiles : IFileLayer
{
    private readonly Dictionary<string, byte[]> _files = [];

    public List<TrackedFile> Opened { get; } = [];

    public byte[] this[string path]
    {
        get => _files[path];
        set => _files[path] = value;
    }

    public void Remove(string path) => _files.Remove(path);

    public IReadFile OpenRead(string path)
    {
        if (!_files.TryGetValue(path, out byte[]? bytes)) throw new FileNotFoundException("no such file", path);
        Opened.Add(new TrackedFile(new MemoryReadFile(path, bytes)));
        return Opened[^1];
    }

    public bool IsInUse(string path) => false;

    public bool FileExists(string path) => _files.ContainsKey(path);

    public IWriteFile Create(string path, long byteLength) => throw new NotSupportedException();

    public bool DirectoryExists(string path) => throw new NotSupportedException();

    public IReadOnlyList<string> List(string directory) => throw new NotSupportedException();

    public FileIdentity Identify(string path) => throw new NotSupportedException();

    public string? ResolveLink(string path) => throw new NotSupportedException();

    public void CreateDirectory(string path) => throw new NotSupportedException();

    public void Rename(string from, string to, bool overwrite) => throw new NotSupportedException();

    public void Delete(string path) => throw new NotSupportedException();

    public void FlushDirectory(string path) => throw new NotSupportedException();

    public long FreeBytes(string path) => throw new NotSupportedException();
}

internal sealed class TrackedFile(IReadFile inner) : IReadFile
{
    public bool IsDisposed { get; private set; }
    public string Path => inner.Path;
    public long Length => inner.Length;

    public int Read(long byteOffset, Span<byte> destination) => inner.Read(byteOffset, destination);

    public void Dispose() => IsDisposed = true;
}

internal static class Opening
{
    public static GgufFile Open(byte[] bytes, EventLog? events = null) =>
        GgufFile.Open(new MemoryReadFile("model.gguf", bytes), new ReadOptions { Events = events ?? new EventLog() });

    public static GgufFile Open(RawGguf raw, EventLog? events = null) => Open(raw.Build(), events);

    public static IReadOnlyList<GgufPart> Inspect(RawGguf raw) =>
        GgufFile.Inspect(new MemoryFiles { ["model.gguf"] = raw.Build() }, "model.gguf", new ReadOptions());
}
