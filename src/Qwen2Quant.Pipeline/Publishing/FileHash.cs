using System.Security.Cryptography;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Publishing;

/// <summary>SHA-256 of a file's bytes.</summary>
internal static class FileHash
{
    private const int ChunkBytes = 1 << 20;

    /// <returns>Lower-case hexadecimal digits.</returns>
    public static string Sha256(Func<IReadFile> open, CancellationToken cancellation)
    {
        using IReadFile file = open();
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[ChunkBytes];
        for (long offset = 0; offset < file.Length; offset += buffer.Length)
        {
            cancellation.ThrowIfCancellationRequested();
            Span<byte> chunk = buffer.AsSpan(0, (int)Math.Min(buffer.Length, file.Length - offset));
            file.ReadExactly(offset, chunk);
            hash.AppendData(chunk);
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
