using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Files;

public static class FileExtensions
{
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
            catch (IOException error)
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
    public static byte[] ReadAllBytes(this IFileLayer files, string path, long maximumBytes)
    {
        using IReadFile file = files.OpenRead(path);
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
}

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
