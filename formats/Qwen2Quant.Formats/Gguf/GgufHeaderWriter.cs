using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>Writes the parts of a version 3 header, little-endian, to a growing buffer.</summary>
internal sealed class GgufHeaderWriter
{
    private readonly ArrayBufferWriter<byte> _buffer = new();

    public void Preamble(int tensorCount, int keyCount)
    {
        const int Version = 3;
        _buffer.Write("GGUF"u8);
        UInt32(Version);
        UInt64((ulong)tensorCount);
        UInt64((ulong)keyCount);
    }

    public void Pair(string key, GgufValue value)
    {
        String(Encoding.UTF8.GetBytes(key));
        UInt32((uint)value.Type);
        if (value.IsArray)
        {
            UInt32((uint)value.ElementType);
            UInt64((ulong)value.Count);
        }

        if (value.ElementType != GgufValueType.String)
        {
            _buffer.Write(value.Bytes);
            return;
        }

        for (int i = 0; i < value.Count; i++) String(value.GetUtf8(i));
    }

    /// <param name="dimensions">Outermost first; they are written in reverse.</param>
    /// <param name="offset">Counted from the data section.</param>
    public void TensorInfo(string name, ReadOnlySpan<long> dimensions, int typeId, long offset)
    {
        String(Encoding.UTF8.GetBytes(name));
        UInt32((uint)dimensions.Length);
        for (int i = dimensions.Length - 1; i >= 0; i--) UInt64((ulong)dimensions[i]);
        UInt32((uint)typeId);
        UInt64((ulong)offset);
    }

    /// <summary>All bytes written, with zeros up to a multiple of <paramref name="alignment"/>.</summary>
    public byte[] ToPaddedArray(int alignment)
    {
        byte[] padded = new byte[(_buffer.WrittenCount + alignment - 1L) / alignment * alignment];
        _buffer.WrittenSpan.CopyTo(padded);
        return padded;
    }

    private void String(ReadOnlySpan<byte> utf8)
    {
        UInt64((ulong)utf8.Length);
        _buffer.Write(utf8);
    }

    private void UInt32(uint value)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(_buffer.GetSpan(sizeof(uint)), value);
        _buffer.Advance(sizeof(uint));
    }

    private void UInt64(ulong value)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(_buffer.GetSpan(sizeof(ulong)), value);
        _buffer.Advance(sizeof(ulong));
    }
}
