using System.Text;
using System.Text.Unicode;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// Reads keys and values. Every length is compared with the bytes that remain before anything is allocated for it, so memory
/// stays within a small multiple of the file.
/// </summary>
internal sealed class GgufValueReader(GgufCursor cursor, Limits limits)
{
    private const int LongestKey = 65535;

    /// <summary>Deeper nesting than this would need a stack that a raised limit must not ask for.</summary>
    private const int DeepestNesting = 64;

    /// <summary>Strings that are not UTF-8, so far, and the key of the first.</summary>
    public long MalformedStringCount { get; private set; }

    public string? FirstMalformedKey { get; private set; }

    public string ReadKey()
    {
        long at = cursor.Position;
        long length = cursor.ReadCount();
        if (length is < 1 or > LongestKey || length > cursor.Remaining)
        {
            throw GgufRefusal.Of(
                GgufRules.KeyLength, cursor.Path, "a metadata key has an impossible length", at: at,
                found: $"{(ulong)length} bytes", expected: $"1 to {Math.Min(LongestKey, cursor.Remaining)} bytes");
        }

        byte[] bytes = new byte[length];
        cursor.Read(bytes);
        if (Utf8.IsValid(bytes)) return Encoding.UTF8.GetString(bytes);
        throw GgufRefusal.Of(GgufRules.KeySpelling, cursor.Path, "a metadata key is not UTF-8", at: at, found: TextEscape.Escape(bytes));
    }

    public GgufValue ReadValue(string key)
    {
        GgufValueType type = ReadType(key);
        return type == GgufValueType.Array ? ReadArray(key, depth: 1) : ReadScalar(key, type);
    }

    private GgufValueType ReadType(string key)
    {
        long at = cursor.Position;
        uint type = cursor.ReadUInt32();
        if (type <= (uint)GgufValueType.Float64) return (GgufValueType)type;
        throw GgufRefusal.Of(GgufRules.ValueType, cursor.Path, "metadata has an unknown value type", key, at, $"{type}", "0 to 12");
    }

    private GgufValue ReadScalar(string key, GgufValueType type)
    {
        if (type == GgufValueType.String)
        {
            byte[] text = new byte[ReadStringLength(key)];
            cursor.Read(text);
            NoteEncoding(key, text);
            return GgufValue.String(text);
        }

        long at = cursor.Position;
        byte[] bytes = new byte[type.FixedBytes()];
        cursor.Read(bytes);
        if (type == GgufValueType.Bool) CheckBooleans(key, bytes, at);
        return GgufValue.OfFixed(type, type, bytes);
    }

    private GgufValue ReadArray(string key, int depth)
    {
        int deepest = Math.Min(limits.Nesting, DeepestNesting);
        if (depth > deepest)
        {
            throw GgufRefusal.Of(GgufRules.Nesting, cursor.Path, "arrays are nested too deep", key, cursor.Position, expected: $"at most {deepest} levels");
        }

        GgufValueType elementType = ReadType(key);
        long at = cursor.Position;
        long count = cursor.ReadCount();
        int elementBytes = elementType switch
        {
            GgufValueType.String => cursor.CountBytes,
            GgufValueType.Array => sizeof(uint) + cursor.CountBytes,
            _ => elementType.FixedBytes(),
        };
        if (count < 0 || count > cursor.Remaining / elementBytes)
        {
            throw GgufRefusal.Of(
                GgufRules.ArrayLength, cursor.Path, "an array is longer than the file", key, at,
                $"{(ulong)count} elements", $"at most {cursor.Remaining / elementBytes}");
        }

        long ceiling = Math.Min(limits.ArrayElements, Array.MaxLength / elementBytes);
        if (count > ceiling) throw GgufRefusal.Limit(GgufRules.ArrayLength, cursor.Path, "an array has more elements than the limit", count, ceiling, key);
        return elementType switch
        {
            GgufValueType.String => ReadStrings(key, (int)count),
            GgufValueType.Array => ReadNested(key, (int)count, depth),
            _ => ReadFixed(key, elementType, (int)count * elementBytes),
        };
    }

    private GgufValue ReadFixed(string key, GgufValueType elementType, int byteCount)
    {
        long at = cursor.Position;
        byte[] bytes = GC.AllocateUninitializedArray<byte>(byteCount);
        cursor.Read(bytes);
        if (elementType == GgufValueType.Bool) CheckBooleans(key, bytes, at);
        return GgufValue.OfFixed(GgufValueType.Array, elementType, bytes);
    }

    private GgufValue ReadNested(string key, int count, int depth)
    {
        GgufValue[] items = new GgufValue[count];
        for (int i = 0; i < count; i++) items[i] = ReadArray(key, depth + 1);
        return GgufValue.Nested(items);
    }

    private GgufValue ReadStrings(string key, int count)
    {
        const int TypicalBytes = 8;
        int[] ends = new int[count];
        byte[] bytes = new byte[Math.Min((long)count * TypicalBytes, cursor.Remaining)];
        int length = 0;
        for (int i = 0; i < count; i++)
        {
            int stringLength = ReadStringLength(key);
            long end = (long)length + stringLength;
            if (end > bytes.Length)
            {
                if (end > Array.MaxLength) throw GgufRefusal.Limit(GgufRules.ArrayLength, cursor.Path, "an array of strings has too many bytes", end, Array.MaxLength, key);
                long grown = Math.Min(Math.Max(end, 2L * bytes.Length), Math.Min(length + cursor.Remaining, Array.MaxLength));
                Array.Resize(ref bytes, (int)grown);
            }

            Span<byte> text = bytes.AsSpan(length, stringLength);
            cursor.Read(text);
            NoteEncoding(key, text);
            ends[i] = length = (int)end;
        }

        Array.Resize(ref bytes, length);
        return GgufValue.OfStrings(bytes, ends);
    }

    private int ReadStringLength(string key)
    {
        long at = cursor.Position;
        long length = cursor.ReadCount();
        if (length < 0 || length > cursor.Remaining)
        {
            throw GgufRefusal.Of(
                GgufRules.StringLength, cursor.Path, "a string is longer than the file", key, at,
                $"{(ulong)length} bytes", $"at most {cursor.Remaining} bytes");
        }

        long ceiling = Math.Min(limits.StringBytes, Array.MaxLength);
        if (length > ceiling) throw GgufRefusal.Limit(GgufRules.StringLength, cursor.Path, "a string has more bytes than the limit", length, ceiling, key);
        return (int)length;
    }

    private void NoteEncoding(string key, ReadOnlySpan<byte> text)
    {
        if (Utf8.IsValid(text)) return;
        MalformedStringCount++;
        FirstMalformedKey ??= key;
    }

    private void CheckBooleans(string key, ReadOnlySpan<byte> bytes, long at)
    {
        int bad = bytes.IndexOfAnyExceptInRange((byte)0, (byte)1);
        if (bad < 0) return;
        throw GgufRefusal.Of(GgufRules.ValueType, cursor.Path, "a boolean is neither 0 nor 1", key, at + bad, $"{bytes[bad]}", "0 or 1");
    }
}
