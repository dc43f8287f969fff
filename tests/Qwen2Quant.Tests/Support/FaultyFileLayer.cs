using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Tests.Support;

public enum Fault
{
    /// <summary>The call throws as on EIO.</summary>
    InputOutput,

    /// <summary>The call throws as on ENOSPC.</summary>
    NoSpace,

    /// <summary>The call throws as on EACCES.</summary>
    AccessDenied,

    /// <summary>A read returns fewer bytes than asked, as the system may; any other call succeeds.</summary>
    ShortRead,

    /// <summary>A read returns nothing, as after truncation; any other call succeeds.</summary>
    Truncated,
}

/// <summary>The disk with one bad call: the n-th of all calls fails with the chosen fault.</summary>
public sealed class FaultyFileLayer(IFileLayer inner, int failingCall, Fault fault) : IFileLayer
{
    private int _calls;

    /// <summary>Calls made so far.</summary>
    public int Calls => Volatile.Read(ref _calls);

    public bool Struck => Calls > failingCall;

    /// <summary>What was called, in order, for crash replays and messages.</summary>
    public List<string> Log { get; } = [];

    public IReadFile OpenRead(string path)
    {
        Step("open", path);
        return new ReadFile(this, inner.OpenRead(path));
    }

    public IWriteFile Create(string path, long byteLength)
    {
        Step("create", path);
        return new WriteFile(this, inner.Create(path, byteLength));
    }

    public IWriteFile OpenWrite(string path, long byteLength)
    {
        Step("open-write", path);
        return new WriteFile(this, inner.OpenWrite(path, byteLength));
    }

    public IDisposable? TryLock(string path)
    {
        Step("lock", path);
        return inner.TryLock(path);
    }

    public IScratchFile CreateScratch(string directory)
    {
        Step("scratch", directory);
        return new ScratchFile(this, inner.CreateScratch(directory));
    }

    public bool IsInUse(string path) => inner.IsInUse(path);

    public bool FileExists(string path) => inner.FileExists(path);

    public bool DirectoryExists(string path) => inner.DirectoryExists(path);

    public IReadOnlyList<string> List(string directory)
    {
        Step("list", directory);
        return inner.List(directory);
    }

    public FileIdentity Identify(string path)
    {
        Step("identify", path);
        return inner.Identify(path);
    }

    public string? ResolveLink(string path) => inner.ResolveLink(path);

    public void CreateDirectory(string path)
    {
        Step("mkdir", path);
        inner.CreateDirectory(path);
    }

    public void Rename(string from, string to, bool overwrite)
    {
        Step("rename", to);
        inner.Rename(from, to, overwrite);
    }

    public void Delete(string path)
    {
        Step("delete", path);
        inner.Delete(path);
    }

    public void FlushDirectory(string path)
    {
        Step("flush-directory", path);
        inner.FlushDirectory(path);
    }

    public long FreeBytes(string path)
    {
        Step("free", path);
        return inner.FreeBytes(path);
    }

    private bool Step(string call, string path)
    {
        int number = Interlocked.Increment(ref _calls) - 1;
        lock (Log) Log.Add($"{number} {call} {Path.GetFileName(path)}");
        if (number != failingCall) return false;
        const int diskFull = 28;
        switch (fault)
        {
            case Fault.InputOutput: throw new IOException("Input/output error");
            case Fault.NoSpace: throw new IOException("No space left on device", diskFull);
            case Fault.AccessDenied: throw new UnauthorizedAccessException("Permission denied");
            default: return true;
        }
    }

    private sealed class ReadFile(FaultyFileLayer layer, IReadFile inner) : IReadFile
    {
        public string Path => inner.Path;
        public long Length => inner.Length;

        public int Read(long byteOffset, Span<byte> destination)
        {
            if (!layer.Step("read", Path)) return inner.Read(byteOffset, destination);
            return layer.FaultKind == Fault.Truncated ? 0 : inner.Read(byteOffset, destination[..Math.Min(destination.Length, 1)]);
        }

        public void Dispose() => inner.Dispose();
    }

    private Fault FaultKind => fault;

    private sealed class ScratchFile(FaultyFileLayer layer, IScratchFile inner) : IScratchFile
    {
        public string Path => inner.Path;

        public int Read(long byteOffset, Span<byte> destination)
        {
            if (!layer.Step("scratch-read", Path)) return inner.Read(byteOffset, destination);
            return layer.FaultKind == Fault.Truncated ? 0 : inner.Read(byteOffset, destination[..Math.Min(destination.Length, 1)]);
        }

        public void Write(long byteOffset, ReadOnlySpan<byte> source)
        {
            layer.Step("scratch-write", Path);
            inner.Write(byteOffset, source);
        }

        public void Dispose() => inner.Dispose();
    }

    private sealed class WriteFile(FaultyFileLayer layer, IWriteFile inner) : IWriteFile
    {
        public string Path => inner.Path;

        public void Write(long byteOffset, ReadOnlySpan<byte> source)
        {
            layer.Step("write", Path);
            inner.Write(byteOffset, source);
        }

        public void StartWriteBack(long byteOffset, long byteCount) => inner.StartWriteBack(byteOffset, byteCount);

        public void FlushToDisk()
        {
            layer.Step("flush", Path);
            inner.FlushToDisk();
        }

        public void Dispose() => inner.Dispose();
    }
}
