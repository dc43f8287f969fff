using System.Buffers;
using System.Buffers.Binary;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// Reads a header front to back through a window of fixed size: memory does not depend on the file, and what lies behind the
/// header is never touched.
/// </summary>
internal sealed class GgufCursor(IReadFile file) : IDisposable
{
    private const int WindowBytes = 256 << 10;

    private readonly byte[] _window = ArrayPool<byte>.Shared.Rent(WindowBytes);
    private readonly long _fileLength = file.Length;
    private long _windowStart;
    private int _windowLength;

    /// <summary>Offset of the next byte.</summary>
    public long Position { get; private set; }

    public long Remaining => _fileLength - Position;

    public string Path => file.Path;

    /// <summary>Bytes of a count or length: 4 in version 1, 8 after it.</summary>
    public int CountBytes { get; set; } = 8;

    public byte ReadByte() => Take(1)[0];

    public uint ReadUInt32() => BinaryPrimitives.ReadUInt32LittleEndian(Take(4));

    public long ReadInt64() => BinaryPrimitives.ReadInt64LittleEndian(Take(8));

    /// <summary>A count, length or dimension; negative when the file holds 2^63 or more.</summary>
    public long ReadCount() => CountBytes == 4 ? ReadUInt32() : ReadInt64();

    /// <summary>Copies the next bytes, which the caller knows to be there.</summary>
    public void Read(Span<byte> destination)
    {
        if (destination.Length <= WindowBytes)
        {
            Take(destination.Length).CopyTo(destination);
            return;
        }

        file.ReadExactly(Position, destination);
        Position += destination.Length;
    }

    public void Dispose() => ArrayPool<byte>.Shared.Return(_window);

    /// <summary>The next <paramref name="count"/> bytes, at most a window; valid until the next call.</summary>
    private ReadOnlySpan<byte> Take(int count)
    {
        if (count > Remaining)
        {
            throw GgufRefusal.Of(GgufRules.Counts, Path, "the file ends inside its header", at: Position, found: $"{Remaining} bytes", expected: $"{count} bytes");
        }

        int start = (int)(Position - _windowStart);
        if (start + count > _windowLength)
        {
            _windowStart = Position;
            _windowLength = 0;
            int wanted = (int)Math.Min(WindowBytes, Remaining);
            file.ReadExactly(Position, _window.AsSpan(0, wanted));
            _windowLength = wanted;
            start = 0;
        }

        Position += count;
        return _window.AsSpan(start, count);
    }
}
