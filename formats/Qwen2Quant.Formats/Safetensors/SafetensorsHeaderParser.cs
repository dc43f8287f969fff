using System.Text;
using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// Turns the JSON of a header into entries. First the syntax of the whole is checked, then each member,
/// then how the tensors lie; nothing is handed out before the last check.
/// </summary>
internal sealed class SafetensorsHeaderParser(string path, long dataByteOffset, int fileIndex, Limits limits)
{
    /// <summary>Bytes of the length field: where the header starts.</summary>
    public const int HeaderByteOffset = 8;

    private readonly List<TensorEntry> _tensors = [];
    private readonly Dictionary<(string Name, long ValueCount, long ByteCount), SizedType> _unknownTypes = [];
    private readonly long[] _dimensions = new long[limits.SafetensorsDimensions];
    private bool _hasMetadata;
    private bool _inOrder = true;
    private string? _tensor;
    private long _byteOffset;

    [Flags]
    private enum Members
    {
        None = 0,
        Dtype = 1,
        Shape = 2,
        DataOffsets = 4,
        All = Dtype | Shape | DataOffsets,
    }

    /// <summary>All tensors by rising offset, those without values before the one that begins where they lie.</summary>
    public IReadOnlyList<TensorEntry> Tensors => _tensors;

    /// <summary>Place in <see cref="Tensors"/> of each name.</summary>
    public Dictionary<string, int> IndexOf { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, string> Metadata { get; } = new(StringComparer.Ordinal);

    public void Parse(ReadOnlySpan<byte> header)
    {
        ReadOnlySpan<byte> json = CheckSyntax(header);
        Utf8JsonReader reader = StrictJson.NewReader(json, limits.JsonDepth);
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("__metadata__"u8)) ReadMetadata(ref reader);
            else ReadEntry(ref reader);
        }

        if (!_inOrder) Sort();
    }

    /// <summary>Checks that the tensors cover the data section, each byte once, and that the file ends with them.</summary>
    public void CheckLayout(long fileByteLength)
    {
        long expected = dataByteOffset;
        TensorEntry? previous = null;
        foreach (TensorEntry entry in _tensors)
        {
            if (entry.ByteOffset != expected) throw Misplaced(entry, previous, expected);
            expected = entry.ByteOffset + entry.ByteLength;
            previous = entry;
        }

        if (expected == fileByteLength) return;
        _tensor = previous?.Name;
        _byteOffset = Math.Min(expected, fileByteLength);
        throw expected > fileByteLength
            ? Fail(SafetensorsRules.DataInFile, "the data ends before the last tensor does", $"{fileByteLength} bytes", $"{expected} bytes", "The file is cut short: download or copy it again.")
            : Fail(SafetensorsRules.NothingAfter, "bytes follow the last tensor", $"{fileByteLength} bytes", $"{expected} bytes");
    }

    private ReadOnlySpan<byte> CheckSyntax(ReadOnlySpan<byte> header)
    {
        JsonFault fault = StrictJson.Check(header, limits.JsonDepth, out int offset);
        _byteOffset = HeaderByteOffset + (long)offset;
        string found = $"'{TextEscape.Escape(header[Math.Min(offset, header.Length)..])}'";
        switch (fault)
        {
            case JsonFault.Syntax:
                throw Fail(SafetensorsRules.HeaderIsObject, "the header is not a well-formed JSON object", found);
            case JsonFault.Utf8:
                throw Fail(SafetensorsRules.HeaderIsUtf8, "the header holds text that is not valid Unicode");
            case JsonFault.Depth:
                throw Fail(SafetensorsRules.HeaderDepth, "the header is nested too deep", expected: $"at most {limits.JsonDepth} levels");
        }

        int other = header[offset..].IndexOfAnyExcept((byte)' ');
        if (other < 0) return header[..offset];
        _byteOffset += other;
        throw Fail(SafetensorsRules.PaddedWithSpaces, "something follows the header's object", found, "spaces only");
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        At(ref reader, "__metadata__");
        if (_hasMetadata) throw Fail(SafetensorsRules.MetadataOfStrings, "the metadata occurs twice");
        _hasMetadata = true;
        reader.Read();
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            throw Fail(SafetensorsRules.MetadataOfStrings, "the metadata is not an object", StrictJson.Describe(ref reader));
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = ReadText(ref reader, limits.StringBytes, SafetensorsRules.MetadataOfStrings);
            At(ref reader, key);
            reader.Read();
            if (reader.TokenType != JsonTokenType.String)
            {
                throw Fail(SafetensorsRules.MetadataOfStrings, "a metadata value is not a string", StrictJson.Describe(ref reader));
            }

            string value = ReadText(ref reader, limits.StringBytes, SafetensorsRules.MetadataOfStrings);
            if (!Metadata.TryAdd(key, value)) throw Fail(SafetensorsRules.MetadataOfStrings, "a metadata key occurs twice");
        }
    }

    private void ReadEntry(ref Utf8JsonReader reader)
    {
        At(ref reader, null);
        string name = ReadText(ref reader, limits.NameBytes, SafetensorsRules.NameWithinLimit);
        _tensor = name;
        if (_tensors.Count >= limits.TensorCount)
        {
            throw Fail(SafetensorsRules.CountWithinLimit, "there are too many tensors", expected: $"at most {limits.TensorCount}", kind: ErrorKind.Resource);
        }

        if (!IndexOf.TryAdd(name, _tensors.Count)) throw Fail(SafetensorsRules.UniqueNames, "a tensor name occurs twice");
        reader.Read();
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            throw Fail(SafetensorsRules.EntryMembers, "an entry is not an object", StrictJson.Describe(ref reader));
        }

        Members seen = Members.None;
        SafetensorsDtype? dtype = null;
        string unknownDtype = "";
        int rank = 0;
        long begin = 0, end = 0;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            Members member = Identify(ref reader);
            if ((seen & member) != 0) throw Fail(SafetensorsRules.UniqueMembers, $"the member {reader.GetString()} occurs twice in the entry");
            seen |= member;
            reader.Read();
            switch (member)
            {
                case Members.Dtype:
                    Demand(ref reader, JsonTokenType.String, "dtype is not a string");
                    dtype = SafetensorsDtypes.Find(ref reader);
                    if (dtype is null) unknownDtype = ReadText(ref reader, limits.StringBytes, SafetensorsRules.EntryMembers);
                    break;
                case Members.Shape:
                    rank = ReadShape(ref reader);
                    break;
                default:
                    (begin, end) = ReadOffsets(ref reader);
                    break;
            }
        }

        if (seen != Members.All) throw Fail(SafetensorsRules.EntryMembers, "a member is missing in the entry", expected: $"also {Members.All & ~seen}");
        Add(name, dtype, unknownDtype, _dimensions.AsSpan(0, rank), begin, end);
    }

    private Members Identify(ref Utf8JsonReader reader)
    {
        if (reader.ValueTextEquals("dtype"u8)) return Members.Dtype;
        if (reader.ValueTextEquals("shape"u8)) return Members.Shape;
        if (reader.ValueTextEquals("data_offsets"u8)) return Members.DataOffsets;
        throw Fail(SafetensorsRules.EntryMembers, "an entry has a member that the format does not know", reader.GetString());
    }

    private int ReadShape(ref Utf8JsonReader reader)
    {
        Demand(ref reader, JsonTokenType.StartArray, "shape is not an array");
        int rank = 0;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (rank == _dimensions.Length)
            {
                throw Fail(SafetensorsRules.WholeDimensions, "a shape has too many dimensions", expected: $"at most {_dimensions.Length}", kind: ErrorKind.Resource);
            }

            if (!StrictJson.TryGetWhole(ref reader, out _dimensions[rank++]))
            {
                throw Fail(SafetensorsRules.WholeDimensions, "a dimension is not a whole number", StrictJson.Describe(ref reader));
            }
        }

        return rank;
    }

    private (long Begin, long End) ReadOffsets(ref Utf8JsonReader reader)
    {
        Demand(ref reader, JsonTokenType.StartArray, "data_offsets is not an array");
        Span<long> pair = stackalloc long[2];
        int count = 0;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (count == 2) throw Fail(SafetensorsRules.OrderedOffsets, "data_offsets holds more than two numbers");
            if (!StrictJson.TryGetWhole(ref reader, out pair[count++]))
            {
                throw Fail(SafetensorsRules.OrderedOffsets, "an offset is not a whole number", StrictJson.Describe(ref reader));
            }
        }

        if (count < 2) throw Fail(SafetensorsRules.OrderedOffsets, "data_offsets holds fewer than two numbers");
        if (pair[0] > pair[1]) throw Fail(SafetensorsRules.OrderedOffsets, "a tensor begins after its end", $"[{pair[0]}, {pair[1]}]");
        return (pair[0], pair[1]);
    }

    private void Add(string name, SafetensorsDtype? dtype, string unknownDtype, ReadOnlySpan<long> dimensions, long begin, long end)
    {
        long byteLength = end - begin;
        if (!Shape.TryCountValues(dimensions, out long valueCount))
        {
            throw Fail(SafetensorsRules.SizeWithinRange, "the product of the shape overflows", $"[{string.Join(", ", dimensions.ToArray())}]");
        }

        ElementType type = dtype is null ? UnknownType(unknownDtype, valueCount, byteLength) : dtype.Element;
        if (valueCount % type.ValuesPerBlock != 0)
        {
            throw Fail(SafetensorsRules.SizeMatches, "the values do not fill whole bytes", $"{valueCount} values of {type.Name}", $"a multiple of {type.ValuesPerBlock}");
        }

        if (!CheckedMath.TryMultiply(valueCount / type.ValuesPerBlock, type.BytesPerBlock, out long expected))
        {
            throw Fail(SafetensorsRules.SizeWithinRange, "the size of the tensor overflows", $"{valueCount} values of {type.Name}");
        }

        if (byteLength != expected)
        {
            throw Fail(SafetensorsRules.SizeMatches, "the tensor's bytes do not match its dtype and shape", $"{byteLength} bytes", $"{expected} bytes ({valueCount} values of {type.Name})");
        }

        if (!CheckedMath.TryAdd(dataByteOffset, end, out _))
        {
            throw Fail(SafetensorsRules.DataInFile, "the tensor lies beyond the end of any file", $"[{begin}, {end}]");
        }

        Shape shape = _tensors.Count > 0 && dimensions.SequenceEqual(_tensors[^1].Shape.Dimensions) ? _tensors[^1].Shape : new Shape(dimensions);
        TensorEntry entry = new(name, type, shape, dataByteOffset + begin, fileIndex);
        _inOrder &= _tensors.Count == 0 || ByPlace.Compare(_tensors[^1], entry) <= 0;
        _tensors.Add(entry);
    }

    private SizedType UnknownType(string dtype, long valueCount, long byteLength)
    {
        SizedType type = SizedType.FromTensor(dtype, valueCount, byteLength)
            ?? throw Fail(SafetensorsRules.SizeMatches, "no dtype has values of this size", $"{byteLength} bytes for {valueCount} values of {dtype}");
        (string, long, long) key = (dtype, type.ValuesPerBlock, type.BytesPerBlock);
        return _unknownTypes.TryGetValue(key, out SizedType? known) ? known : _unknownTypes[key] = type;
    }

    private void Sort()
    {
        TensorEntry[] sorted = [.. _tensors.Order(ByPlace)];
        _tensors.Clear();
        _tensors.AddRange(sorted);
        for (int i = 0; i < sorted.Length; i++) IndexOf[sorted[i].Name] = i;
    }

    private static readonly Comparer<TensorEntry> ByPlace = Comparer<TensorEntry>.Create(static (left, right) =>
        left.ByteOffset != right.ByteOffset ? left.ByteOffset.CompareTo(right.ByteOffset) : left.ByteLength.CompareTo(right.ByteLength));

    private QuantException Misplaced(TensorEntry entry, TensorEntry? previous, long expected)
    {
        _tensor = entry.Name;
        _byteOffset = entry.ByteOffset;
        string found = $"offset {entry.ByteOffset - dataByteOffset}", wanted = $"offset {expected - dataByteOffset}";
        if (previous is null) return Fail(SafetensorsRules.FirstAtZero, "the first tensor does not begin where the data does", found, wanted);
        string neighbour = TextEscape.Escape(previous.Name);
        if (entry.ByteLength == 0) return Fail(SafetensorsRules.EmptyTensorInOrder, $"a tensor without values does not lie at the end of '{neighbour}'", found, wanted);
        return entry.ByteOffset < expected
            ? Fail(SafetensorsRules.NoOverlap, $"a tensor overlaps '{neighbour}'", found, wanted)
            : Fail(SafetensorsRules.NoHole, $"bytes belong to no tensor between '{neighbour}' and", found, wanted);
    }

    private string ReadText(ref Utf8JsonReader reader, long maximumBytes, Rule rule)
    {
        string text = reader.GetString()!;
        if (reader.ValueSpan.Length <= maximumBytes || Encoding.UTF8.GetByteCount(text) <= maximumBytes) return text;
        throw Fail(rule, "a text is too long", $"{Encoding.UTF8.GetByteCount(text)} bytes", $"at most {maximumBytes} bytes", kind: ErrorKind.Resource);
    }

    private void Demand(ref Utf8JsonReader reader, JsonTokenType token, string summary)
    {
        if (reader.TokenType != token) throw Fail(SafetensorsRules.EntryMembers, summary, StrictJson.Describe(ref reader));
    }

    private void At(ref Utf8JsonReader reader, string? tensor)
    {
        _tensor = tensor;
        _byteOffset = HeaderByteOffset + reader.TokenStartIndex;
    }

    private QuantException Fail(Rule rule, string summary, string? found = null, string? expected = null, string? remedy = null, ErrorKind kind = ErrorKind.InvalidInput) =>
        new(kind, summary)
        {
            Rule = rule,
            Path = path,
            Tensor = _tensor,
            ByteOffset = _byteOffset,
            Found = found,
            Expected = expected,
            Remedy = remedy,
        };
}
