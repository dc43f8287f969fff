namespace Qwen2Quant.Core.Files;

/// <summary>A file opened for positional reading. Thread-safe.</summary>
public interface IReadFile : IDisposable
{
    string Path { get; }

    /// <summary>Bytes when it was opened.</summary>
    long Length { get; }

    /// <summary>Reads at most <paramref name="destination"/>.Length bytes; fewer is legal, 0 means the end.</summary>
    int Read(long byteOffset, Span<byte> destination);
}

/// <summary>A file opened for positional writing. Thread-safe.</summary>
public interface IWriteFile : IDisposable
{
    string Path { get; }

    /// <summary>Writes all of <paramref name="source"/> at <paramref name="byteOffset"/>.</summary>
    void Write(long byteOffset, ReadOnlySpan<byte> source);

    /// <summary>
    /// Says that bytes written will not change, so that the system may begin to bring them to the disk; returns at once and promises nothing.
    /// Failures show when the file is flushed.
    /// </summary>
    void StartWriteBack(long byteOffset, long byteCount)
    {
    }

    /// <summary>Returns when the bytes are on the disk.</summary>
    void FlushToDisk();
}

/// <summary>A file for what does not fit in memory for a while, written and read at any position; it ends with its object, and with the process however that ends. Thread-safe.</summary>
public interface IScratchFile : IDisposable
{
    /// <summary>The path under which it was created; nothing may be there any more.</summary>
    string Path { get; }

    /// <summary>Reads at most <paramref name="destination"/>.Length bytes; fewer is legal, 0 means the end.</summary>
    int Read(long byteOffset, Span<byte> destination);

    /// <summary>Writes all of <paramref name="source"/> at <paramref name="byteOffset"/>.</summary>
    void Write(long byteOffset, ReadOnlySpan<byte> source);
}

/// <summary>What tells whether two paths are one file, and whether a file changed meanwhile.</summary>
public readonly record struct FileIdentity(string ResolvedPath, long Length, DateTime LastWriteUtc);

/// <summary>
/// Every touch of the disk by readers, writers and the publisher goes through here, so that a test can make the n-th call fail.
/// Failures are <see cref="IOException"/> or <see cref="UnauthorizedAccessException"/>; <see cref="FileExtensions"/> turns them into typed errors.
/// </summary>
public interface IFileLayer
{
    /// <summary>Opens a regular file; a FIFO, socket or device is refused with <see cref="NotRegularFileException"/>, without waiting on it.</summary>
    IReadFile OpenRead(string path);

    /// <summary>Creates a new file of that length; fails when the path exists.</summary>
    IWriteFile Create(string path, long byteLength);

    /// <summary>Opens a file for writing, which is created when it is not there; what it holds stays, and its length is set. Several runs may have it open.</summary>
    IWriteFile OpenWrite(string path, long byteLength);

    /// <summary>Creates a file that is this run's until the result is disposed or the process ends, however that ends; null while it is another's.</summary>
    IDisposable? TryLock(string path);

    /// <summary>Creates a scratch file in a folder.</summary>
    IScratchFile CreateScratch(string directory);

    /// <summary>True when another run holds the file, or a file of the folder, open for writing.</summary>
    bool IsInUse(string path);

    bool FileExists(string path);
    bool DirectoryExists(string path);

    /// <summary>Names (not paths) of the entries of a folder, in ordinal order.</summary>
    IReadOnlyList<string> List(string directory);

    FileIdentity Identify(string path);

    /// <summary>The final target of a chain of links, or the path itself; null when the chain is broken or a loop.</summary>
    string? ResolveLink(string path);

    void CreateDirectory(string path);

    /// <summary>Renames a file or folder within one file system.</summary>
    void Rename(string from, string to, bool overwrite);

    /// <summary>Deletes a file, or a folder with what is in it; nothing when it is not there.</summary>
    void Delete(string path);

    /// <summary>Makes the names in a folder durable, where the system can.</summary>
    void FlushDirectory(string path);

    /// <summary>Bytes that can still be written beside <paramref name="path"/>.</summary>
    long FreeBytes(string path);
}
