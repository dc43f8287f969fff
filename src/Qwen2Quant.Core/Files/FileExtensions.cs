using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Files;

/// <summary>
/// The one way from the file layer to typed errors: what is not there or no regular file is <see cref="ErrorKind.InvalidInput"/>,
/// what the disk or the system refuses is <see cref="ErrorKind.Resource"/>. Every error names the path.
/// </summary>
public static class FileExtensions
{
    /// <summary>True for the exceptions by which the file layer tells that the disk failed.</summary>
    public static bool IsDiskFailure(Exception error) => error is IOException or UnauthorizedAccessException;

    /// <summary>Opens a file for reading.</summary>
    /// <exception cref="QuantException">It does not exist, is no regular file (HF-76), or cannot be opened.</exception>
    public static IReadFile OpenTyped(this IFileLayer files, string path) => Typed(path, () => files.OpenRead(path));

    /// <summary>Names of the entries of a folder, in ordinal order.</summary>
    /// <exception cref="QuantException">The folder does not exist or cannot be opened.</exception>
    public static IReadOnlyList<string> ListTyped(this IFileLayer files, string directory) => Typed(directory, () => files.List(directory));

    /// <exception cref="QuantException">The file does not exist or cannot be looked at.</exception>
    public static FileIdentity IdentifyTyped(this IFileLayer files, string path) => Typed(path, () => files.Identify(path));

    /// <summary>Fills <paramref name="destination"/>; a short file is a typed error that names the offset.</summary>
    public static void ReadExactly(this IReadFile file, long byteOffset, Span<byte> destination)
    {
        int filled = 0;
        while (filled < destination.Length)
        {
            int read;
            try
            {
                read = file.Read(byteOffset + filled, destination[filled..]);
            }
            catch (Exception error) when (IsDiskFailure(error))
            {
                throw new QuantException(ErrorKind.Resource, $"cannot be read: {error.Message}", error)
                {
                    Path = file.Path,
                    ByteOffset = byteOffset + filled,
                };
            }

            if (read <= 0)
            {
                throw new QuantException(ErrorKind.InvalidInput, "the file ended while it was read")
                {
                    Path = file.Path,
                    ByteOffset = byteOffset + filled,
                    Found = $"{filled} bytes",
                    Expected = $"{destination.Length} bytes",
                    Remedy = "Make sure that nothing writes to the file, and check its download.",
                };
            }

            filled += read;
        }
    }

    /// <summary>Reads a small file whole, refusing one that is larger than <paramref name="maximumBytes"/>.</summary>
    /// <exception cref="QuantException">As for <see cref="OpenTyped"/>; or the file is too large, or cannot be read to its end.</exception>
    public static byte[] ReadAllBytes(this IFileLayer files, string path, long maximumBytes)
    {
        using IReadFile file = files.OpenTyped(path);
        if (file.Length > maximumBytes)
        {
            throw new QuantException(ErrorKind.Resource, "the file is too large to be what its name says")
            {
                Path = path,
                Found = $"{file.Length} bytes",
                Expected = $"at most {maximumBytes} bytes",
            };
        }

        byte[] bytes = new byte[file.Length];
        file.ReadExactly(0, bytes);
        return bytes;
    }

    private static T Typed<T>(string path, Func<T> call)
    {
        try
        {
            return call();
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new QuantException(ErrorKind.InvalidInput, "does not exist", error) { Path = path };
        }
        catch (NotRegularFileException error)
        {
            throw new QuantException(ErrorKind.InvalidInput, "is not a regular file", error) { Rule = FileRules.RegularFiles, Path = path };
        }
        catch (Exception error) when (IsDiskFailure(error))
        {
            throw new QuantException(ErrorKind.Resource, $"cannot be opened: {TextEscape.Escape(error.Message)}", error) { Path = path };
        }
    }
}

/// <summary>A path leads to a folder, FIFO, socket or device where a file is needed.</summary>
public sealed class NotRegularFileException(string path) : IOException($"'{path}' is not a regular file");

/// <summary>Bytes in memory as a file (embedded models, tests).</summary>
public sealed class MemoryReadFile(string path, ReadOnlyMemory<byte> bytes) : IReadFile
{
    public string Path { get; } = path;
    public long Length => bytes.Length;

    public int Read(long byteOffset, Span<byte> destination)
    {
        if (byteOffset >= bytes.Length) return 0;
        ReadOnlySpan<byte> available = bytes.Span[(int)byteOffset..];
        int count = Math.Min(available.Length, destination.Length);
        available[..count].CopyTo(destination);
        return count;
    }

    public void Dispose()
    {
    }
}
