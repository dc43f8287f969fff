using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// One immutable metadata value. Its bytes are kept as they lie in a file: strings need not be UTF-8, and an array of strings
/// is one run of bytes with the end of each, so that a vocabulary costs little more than it does on disk.
/// </summary>
public sealed partial class GgufValue : IEquatable<GgufValue>
{
    private readonly byte[] _bytes;
    private readonly int[] _ends;
    private readonly GgufValue[] _items;

    private GgufValue(GgufValueType type, GgufValueType elementType, int count, byte[] bytes, int[]? ends = null, GgufValue[]? items = null)
    {
        Type = type;
        ElementType = elementType;
        Count = count;
        _bytes = bytes;
        _ends = ends ?? [];
        _items = items ?? [];
    }

    public GgufValueType Type { get; }

    /// <summary>Type of an array's elements; of the value itself when it is no array.</summary>
    public GgufValueType ElementType { get; }

    /// <summary>Elements of an array; 1 for every other value.</summary>
    public int Count { get; }

    public bool IsArray => Type == GgufValueType.Array;

    /// <summary>The arrays inside an array of arrays; empty for every other value.</summary>
    public IReadOnlyList<GgufValue> Items => _items;

    /// <summary>A number or boolean of exactly the type <typeparamref name="T"/>.</summary>
    /// <exception cref="ArgumentException">GGUF has no such type.</exception>
    public static GgufValue Scalar<T>(T value) where T : unmanaged
    {
        GgufValueType type = TypeOf<T>();
        return new GgufValue(type, type, 1, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray());
    }

    /// <summary>An array of numbers or booleans of exactly the type <typeparamref name="T"/>.</summary>
    /// <exception cref="ArgumentException">GGUF has no such type.</exception>
    public static GgufValue Array<T>(ReadOnlySpan<T> values) where T : unmanaged =>
        new(GgufValueType.Array, TypeOf<T>(), values.Length, MemoryMarshal.AsBytes(values).ToArray());

    public static GgufValue String(string text) => String(Encoding.UTF8.GetBytes(text));

    /// <summary>A string of these bytes, UTF-8 or not.</summary>
    public static GgufValue String(ReadOnlySpan<byte> utf8) => new(GgufValueType.String, GgufValueType.String, 1, utf8.ToArray());

    public static GgufValue StringArray(IReadOnlyList<string> texts)
    {
        int[] ends = new int[texts.Count];
        int length = 0;
        for (int i = 0; i < ends.Length; i++) ends[i] = length = checked(length + Encoding.UTF8.GetByteCount(texts[i]));
        byte[] bytes = new byte[length];
        for (int i = 0, start = 0; i < ends.Length; start = ends[i++]) Encoding.UTF8.GetBytes(texts[i], bytes.AsSpan(start));
        return OfStrings(bytes, ends);
    }

    /// <summary>An array of arrays.</summary>
    /// <exception cref="ArgumentException">An item is not an array.</exception>
    public static GgufValue Nested(IReadOnlyList<GgufValue> items)
    {
        if (items.Any(item => !item.IsArray)) throw new ArgumentException("an item is not an array", nameof(items));
        return new GgufValue(GgufValueType.Array, GgufValueType.Array, items.Count, [], items: [.. items]);
    }

    /// <summary>A value of fixed size from its little-endian bytes, which the new value owns.</summary>
    internal static GgufValue OfFixed(GgufValueType type, GgufValueType elementType, byte[] littleEndian) =>
        new(type, elementType, littleEndian.Length / elementType.FixedBytes(), littleEndian);

    /// <summary>An array of strings from their bytes back to back and the end of each; the new value owns both.</summary>
    internal static GgufValue OfStrings(byte[] bytes, int[] ends) => new(GgufValueType.Array, GgufValueType.String, ends.Length, bytes, ends);

    /// <summary>The bytes of a fixed-size value or array, little-endian, or of a string.</summary>
    internal ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>Bytes of string <paramref name="index"/>, of an array of strings or (index 0) a string.</summary>
    /// <exception cref="InvalidOperationException">The value holds no strings.</exception>
    public ReadOnlySpan<byte> GetUtf8(int index = 0)
    {
        if (ElementType != GgufValueType.String) throw new InvalidOperationException($"a value of type {Describe()} holds no strings");
        if (!IsArray) return _bytes;
        int start = index == 0 ? 0 : _ends[index - 1];
        return _bytes.AsSpan(start, _ends[index] - start);
    }

    /// <summary>String <paramref name="index"/> as text; bytes that are not UTF-8 become U+FFFD.</summary>
    /// <exception cref="InvalidOperationException">The value holds no strings.</exception>
    public string GetString(int index = 0) => Encoding.UTF8.GetString(GetUtf8(index));

    /// <summary>The type in words, with the count of an array.</summary>
    public string Describe() => IsArray
        ? string.Create(CultureInfo.InvariantCulture, $"{ElementType}[{Count}]")
        : Type.ToString();

    /// <summary>For display: escaped text, a number in invariant spelling, or type and count of an array.</summary>
    public override string ToString()
    {
        if (IsArray) return Describe();
        if (Type == GgufValueType.String) return TextEscape.Escape(GetString());
        if (TryGetBool(out bool flag)) return flag ? "true" : "false";
        if (TryReadInteger(0, out Int128 integer)) return integer.ToString(CultureInfo.InvariantCulture);
        return Type == GgufValueType.Float32
            ? At<float>(0).ToString(CultureInfo.InvariantCulture)
            : At<double>(0).ToString(CultureInfo.InvariantCulture);
    }

    public bool Equals([NotNullWhen(true)] GgufValue? other) =>
        other is not null && Type == other.Type && ElementType == other.ElementType && Count == other.Count
        && _bytes.AsSpan().SequenceEqual(other._bytes) && _ends.AsSpan().SequenceEqual(other._ends)
        && _items.AsSpan().SequenceEqual(other._items);

    public override bool Equals(object? obj) => Equals(obj as GgufValue);

    public override int GetHashCode()
    {
        HashCode hash = default;
        hash.Add(Type);
        hash.Add(ElementType);
        hash.Add(Count);
        hash.AddBytes(_bytes);
        return hash.ToHashCode();
    }

    private static GgufValueType TypeOf<T>()
    {
        if (typeof(T) == typeof(byte)) return GgufValueType.UInt8;
        if (typeof(T) == typeof(sbyte)) return GgufValueType.Int8;
        if (typeof(T) == typeof(ushort)) return GgufValueType.UInt16;
        if (typeof(T) == typeof(short)) return GgufValueType.Int16;
        if (typeof(T) == typeof(uint)) return GgufValueType.UInt32;
        if (typeof(T) == typeof(int)) return GgufValueType.Int32;
        if (typeof(T) == typeof(float)) return GgufValueType.Float32;
        if (typeof(T) == typeof(bool)) return GgufValueType.Bool;
        if (typeof(T) == typeof(ulong)) return GgufValueType.UInt64;
        if (typeof(T) == typeof(long)) return GgufValueType.Int64;
        if (typeof(T) == typeof(double)) return GgufValueType.Float64;
        throw new ArgumentException($"GGUF has no type for {typeof(T)}");
    }
}
