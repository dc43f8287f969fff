using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;

namespace Qwen2Quant.Tests.Support;

/// <summary>A folder in memory, for readers only, that counts the files open at a time. A path means the file of its last part, whatever comes before it.</summary>
public sealed class MemoryFolder : IFileLayer
{
    /// <summary>The path under which it is found as a folder.</summary>
    public const string Path = "model";

    private readonly Lock _lock = new();
    private readonly Dictionary<string, byte[]> _files = new(StringComparer.Ordinal);
    private readonly Dictionary<string, DateTime> _times = new(StringComparer.Ordinal);

    public int OpenCount { get; private set; }
    public int MostOpen { get; private set; }
    public int Openings { get; private set; }

    /// <summary>The call that fails, counted from 1; none when 0.</summary>
    public int FailingCall { get; set; }

    public int Calls { get; private set; }

    public MemoryFolder With(string name, byte[] bytes)
    {
        this[name] = bytes;
        return this;
    }

    public MemoryFolder With(string name, string text) => With(name, System.Text.Encoding.UTF8.GetBytes(text));

    public MemoryFolder Without(string name)
    {
        _files.Remove(Name(name));
        return this;
    }

    /// <summary>The files of a plan, their data counting up from the shard's number.</summary>
    public MemoryFolder With(SafetensorsPlan plan)
    {
        foreach (PlannedFile file in plan.Files)
        {
            byte[] bytes = new byte[file.ByteLength];
            for (int i = file.Header.Length; i < bytes.Length; i++) bytes[i] = (byte)(i + file.Name[10]);
            file.Header.CopyTo(bytes, 0);
            With(file.Name, bytes);
        }

        return plan.Index is null ? this : With(SafetensorsPlan.IndexFileName, plan.Index);
    }

    public byte[] this[string name]
    {
        get => _files[Name(name)];
        set => (_files[Name(name)], _times[Name(name)]) = (value, DateTime.UnixEpoch);
    }

    public void Touch(string name) => _times[name] = DateTime.UnixEpoch.AddSeconds(1);

    public IReadFile OpenRead(string path)
    {
        Count();
        if (!_files.TryGetValue(Name(path), out byte[]? bytes)) throw new FileNotFoundException("missing", path);
        lock (_lock)
        {
            Openings++;
            MostOpen = Math.Max(MostOpen, ++OpenCount);
        }

        return new CountedFile(this, path, bytes);
    }

    public bool IsInUse(string path) => false;

    public bool FileExists(string path) => _files.ContainsKey(Name(path));

    public bool DirectoryExists(string path) => path == Path;

    public IReadOnlyList<string> List(string directory)
    {
        Count();
        return [.. _files.Keys.Order(StringComparer.Ordinal)];
    }

    public FileIdentity Identify(string path)
    {
        Count();
        return new(path, _files[Name(path)].Length, _times[Name(path)]);
    }

    public string? ResolveLink(string path) => path;

    public IWriteFile Create(string path, long byteLength) => throw new NotSupportedException();

    public IWriteFile OpenWrite(string path, long byteLength) => throw new NotSupportedException();

    public IDisposable TryLock(string path) => throw new NotSupportedException();

    public IScratchFile CreateScratch(string directory) => throw new NotSupportedException();

    public void CreateDirectory(string path) => throw new NotSupportedException();

    public void Rename(string from, string to, bool overwrite) => throw new NotSupportedException();

    public void Delete(string path) => throw new NotSupportedException();

    public void FlushDirectory(string path) => throw new NotSupportedException();

    public long FreeBytes(string path) => throw new NotSupportedException();

    private void Count()
    {
        lock (_lock)
        {
            if (++Calls == FailingCall) throw new IOException("injected");
        }
    }

    private static string Name(string path) => System.IO.Path.GetFileName(path);

    private sealed class CountedFile(MemoryFolder folder, string path, byte[] bytes) : IReadFile
    {
        private readonly MemoryReadFile _file = new(path, bytes);
        private bool _closed;

        public string Path => path;
        public long Length => bytes.Length;

        public int Read(long byteOffset, Span<byte> destination)
        {
            ObjectDisposedException.ThrowIf(_closed, this);
            folder.Count();
            return _file.Read(byteOffset, destination);
        }

        public void Dispose()
        {
            if (_closed) return;
            _closed = true;
            lock (folder._lock) folder.OpenCount--;
        }
    }
}
