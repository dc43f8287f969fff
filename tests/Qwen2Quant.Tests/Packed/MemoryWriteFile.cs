using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Tests.Packed;

internal sealed class MemoryWriteFile(int length) : IWriteFile
{
    public byte[] Bytes { get; } = new byte[length];

    public string Path => "memory";

    public void Write(long byteOffset, ReadOnlySpan<byte> source) => source.CopyTo(Bytes.AsSpan((int)byteOffset));

    public void FlushToDisk()
    {
    }

    public void Dispose()
    {
    }
}
