using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Tests.Safetensors;

/// <summary>A file of any length that is one byte over and over after its head: large inputs without their memory.</summary>
internal sealed class FilledFile(byte[] head, long length, byte filler = 0) : IReadFile
{
    public string Path => "filled.safetensors";
    public long Length => length;

    public int Read(long byteOffset, Span<byte> destination)
    {
        int count = (int)Math.Clamp(length - byteOffset, 0, destination.Length);
        Span<byte> target = destination[..count];
        target.Fill(filler);
        if (byteOffset < head.Length)
        {
            ReadOnlySpan<byte> rest = head.AsSpan((int)byteOffset);
            rest[..Math.Min(rest.Length, count)].CopyTo(target);
        }

        return count;
    }

    public void Dispose()
    {
    }
}
