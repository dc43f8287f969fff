using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Qwen2Quant.Core.Files;

/// <summary>The real disk: positional reads and writes, no memory maps (a file cut short under a map kills the process).</summary>
public sealed class DiskFileLayer : IFileLayer
{
    public static DiskFileLayer Instance { get; } = new();

    public IReadFile OpenRead(string path)
    {
        SafeFileHandle handle = OperatingSystem.IsWindows() ? File.OpenHandle(path) : Posix.OpenWithoutWaiting(path);
        try
        {
            return new DiskReadFile(path, handle);
        }
        catch (NotSupportedException)
        {
            handle.Dispose();
            throw new NotRegularFileException(path);
        }
    }

    public IWriteFile Create(string path, long byteLength) =>
        new DiskWriteFile(path, File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None), byteLength);

    public IWriteFile OpenWrite(string path, long byteLength) =>
        new DiskWriteFile(path, File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete), byteLength);

    public IDisposable? TryLock(string path)
    {
        try
        {
            return File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException) when (IsInUse(path))
        {
            return null;
        }
    }

    public IScratchFile CreateScratch(string directory)
    {
        string path = Path.Combine(directory, $"qwen2quant-{Guid.NewGuid():N}.scratch");
        FileOptions deletedBySystem = OperatingSystem.IsWindows() ? FileOptions.DeleteOnClose : FileOptions.None;
        SafeFileHandle handle = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.Delete, deletedBySystem);
        // Without a name the file is gone when its handle is, even if the process is killed.
        if (!OperatingSystem.IsWindows()) File.Delete(path);
        return new DiskScratchFile(path, handle);
    }

    public bool IsInUse(string path)
    {
        if (Directory.Exists(path)) return Directory.EnumerateFiles(path).Any(IsInUse);
        try
        {
            // FileShare.None takes an advisory lock, which a live writer holds.
            if (File.Exists(path)) File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None).Dispose();
            return false;
        }
        catch (FileNotFoundException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    public bool FileExists(string path) => File.Exists(path);

    public bool DirectoryExists(string path) => Directory.Exists(path);

    public IReadOnlyList<string> List(string directory)
    {
        string[] names = [.. Directory.EnumerateFileSystemEntries(directory).Select(entry => Path.GetFileName(entry))];
        Array.Sort(names, StringComparer.Ordinal);
        return names;
    }

    public FileIdentity Identify(string path)
    {
        FileInfo info = new(ResolveLink(path) ?? path);
        return new FileIdentity(info.FullName, info.Exists ? info.Length : -1, info.LastWriteTimeUtc);
    }

    public string? ResolveLink(string path)
    {
        try
        {
            FileSystemInfo info = Directory.Exists(path) ? new DirectoryInfo(path) : new FileInfo(path);
            if (info.LinkTarget is null) return info.FullName;
            FileSystemInfo? target = info.ResolveLinkTarget(returnFinalTarget: true);
            return target is { Exists: true } ? target.FullName : null;
        }
        catch (IOException)
        {
            return null;
        }
    }

    public void CreateDirectory(string path) => Directory.CreateDirectory(path);

    public void Rename(string from, string to, bool overwrite)
    {
        if (Directory.Exists(from)) Directory.Move(from, to);
        else File.Move(from, to, overwrite);
    }

    public void Delete(string path)
    {
        if (Directory.Exists(path)) Directory.Delete(path, recursive: true);
        else File.Delete(path);
    }

    public void FlushDirectory(string path)
    {
        if (OperatingSystem.IsWindows()) return;
        using SafeFileHandle handle = Posix.OpenWithoutWaiting(path);
        Posix.Flush(handle, path);
    }

    public long FreeBytes(string path)
    {
        string? directory = Path.GetDirectoryName(Path.GetFullPath(path));
        return new DriveInfo(directory ?? Path.GetFullPath(path)).AvailableFreeSpace;
    }

    private sealed class DiskReadFile(string path, SafeFileHandle handle) : IReadFile
    {
        public string Path { get; } = path;
        public long Length { get; } = RandomAccess.GetLength(handle);

        public int Read(long byteOffset, Span<byte> destination) => RandomAccess.Read(handle, destination, byteOffset);

        public void Dispose() => handle.Dispose();
    }

    private sealed class DiskScratchFile(string path, SafeFileHandle handle) : IScratchFile
    {
        public string Path { get; } = path;

        public int Read(long byteOffset, Span<byte> destination) => RandomAccess.Read(handle, destination, byteOffset);

        public void Write(long byteOffset, ReadOnlySpan<byte> source) => RandomAccess.Write(handle, source, byteOffset);

        public void Dispose() => handle.Dispose();
    }

    private sealed class DiskWriteFile : IWriteFile
    {
        private readonly SafeFileHandle _handle;

        public DiskWriteFile(string path, SafeFileHandle handle, long byteLength)
        {
            Path = path;
            _handle = handle;
            try
            {
                RandomAccess.SetLength(handle, byteLength);
            }
            catch
            {
                handle.Dispose();
                throw;
            }
        }

        public string Path { get; }

        public void Write(long byteOffset, ReadOnlySpan<byte> source) => RandomAccess.Write(_handle, source, byteOffset);

        public void StartWriteBack(long byteOffset, long byteCount)
        {
            if (OperatingSystem.IsLinux()) Posix.StartWriteBack(_handle, byteOffset, byteCount);
        }

        public void FlushToDisk() => RandomAccess.FlushToDisk(_handle);

        public void Dispose() => _handle.Dispose();
    }
}

/// <summary>The system calls that .NET does not offer: opening without waiting for a FIFO's writer, flushing a folder, and starting write-back.</summary>
internal static partial class Posix
{
    private const int ReadOnly = 0;

    private static int NonBlockingCloseOnExec => OperatingSystem.IsMacOS() ? 0x4 | 0x1000000 : 0x800 | 0x80000;

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Fsync(SafeFileHandle handle);

    [LibraryImport("libc", EntryPoint = "sync_file_range")]
    private static partial int SyncFileRange(SafeFileHandle handle, long offset, long length, uint flags);

    public static SafeFileHandle OpenWithoutWaiting(string path)
    {
        int descriptor = Open(path, ReadOnly | NonBlockingCloseOnExec, 0);
        if (descriptor >= 0) return new SafeFileHandle(descriptor, ownsHandle: true);
        throw Error(path);
    }

    public static void Flush(SafeFileHandle handle, string path)
    {
        if (Fsync(handle) != 0) throw Error(path);
    }

    /// <summary>Of <c>sync_file_range</c>'s flags the one that waits for nothing and takes no error from the flush that follows.</summary>
    public static void StartWriteBack(SafeFileHandle handle, long byteOffset, long byteCount)
    {
        const uint Write = 2;
        _ = SyncFileRange(handle, byteOffset, byteCount, Write);
    }

    private static Exception Error(string path)
    {
        int errno = Marshal.GetLastPInvokeError();
        string message = $"{Marshal.GetPInvokeErrorMessage(errno)} : '{path}'";
        const int NoEntry = 2, NoAccess = 13;
        return errno switch
        {
            NoEntry => new FileNotFoundException(message, path),
            NoAccess => new UnauthorizedAccessException(message),
            _ => new IOException(message, errno),
        };
    }
}
