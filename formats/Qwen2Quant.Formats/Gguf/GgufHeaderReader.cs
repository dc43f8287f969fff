using System.Globalization;
using System.Text;
using System.Text.Unicode;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// Reads and checks one file's header: the GGUF specification, with the rules of ggml's own reader or stricter ones.
/// Nothing is handed out before everything is checked.
/// </summary>
internal sealed class GgufHeaderReader
{
    public const int DefaultAlignment = 32;

    /// <summary>A huge page, the largest alignment with a use; a larger one only makes a small file ask for padding without end.</summary>
    public const long LargestAlignment = 2 << 20;

    private const int NewestVersion = 3;

    private readonly IReadFile _file;
    private readonly ReadOptions _options;
    private readonly GgufCursor _cursor;

    private GgufHeaderReader(IReadFile file, ReadOptions options, GgufCursor cursor)
    {
        _file = file;
        _options = options;
        _cursor = cursor;
    }

    /// <summary>The header of <paramref name="file"/>, checked whole. Tensors of unknown type are listed; what follows one has its offset checked as far as is possible.</summary>
    /// <exception cref="QuantException">A rule is broken.</exception>
    public static GgufPart Read(IReadFile file, ReadOptions options)
    {
        using GgufCursor cursor = new(file);
        return new GgufHeaderReader(file, options, cursor).Read();
    }

    private GgufPart Read()
    {
        CheckMagic();
        int version = ReadVersion();
        if (version == 1) _cursor.CountBytes = 4;
        int nameBytes = _cursor.CountBytes + 1;
        long tensorCount = ReadEntryCount("tensors", nameBytes + sizeof(uint) + _cursor.CountBytes + sizeof(uint) + sizeof(ulong));
        long keyCount = ReadEntryCount("metadata keys", nameBytes + sizeof(uint) + 1);
        GgufMetadata metadata = ReadMetadata(keyCount);
        int alignment = GetAlignment(metadata, _file.Path);
        List<RawTensor> tensors = ReadTensors(tensorCount);
        if (!CheckedMath.TryAlign(_cursor.Position, alignment, out long dataOffset)) dataOffset = long.MaxValue;
        IReadOnlyList<GgufTensorInfo> placed = new GgufDataSection(_file, alignment, dataOffset, _options.Events).Place(tensors);
        NoteQuantizationVersion(metadata, placed);
        return new GgufPart(_file.Path, _file.Length, version, alignment, dataOffset, metadata, placed);
    }

    /// <summary>The alignment that metadata state, or the format's default.</summary>
    /// <exception cref="QuantException"><see cref="GgufRules.Alignment"/> is broken.</exception>
    public static int GetAlignment(GgufMetadata metadata, string path)
    {
        if (metadata.Find(GgufKeys.Alignment) is not { } value) return DefaultAlignment;
        if (value.Type == GgufValueType.UInt32 && value.TryGetInteger(out uint alignment)
            && alignment is not 0 and <= (uint)LargestAlignment && uint.IsPow2(alignment))
        {
            return (int)alignment;
        }

        throw GgufRefusal.Of(
            GgufRules.Alignment, path, "the alignment is unusable", GgufKeys.Alignment,
            found: $"{value.Describe()} {value}", expected: $"a UInt32 power of two, at most {LargestAlignment}");
    }

    private void CheckMagic()
    {
        Span<byte> magic = stackalloc byte[4];
        if (_cursor.Remaining < magic.Length)
        {
            throw GgufRefusal.Of(GgufRules.Magic, _file.Path, "the file is too short for GGUF", found: $"{_file.Length} bytes");
        }

        _cursor.Read(magic);
        if (magic.SequenceEqual("GGUF"u8)) return;

        // The formats before GGUF wrote their name as a little-endian number, so its letters are reversed.
        string? old = Encoding.Latin1.GetString(magic) switch
        {
            "lmgg" or "ggml" => "GGML",
            "fmgg" or "ggmf" => "GGMF",
            "tjgg" or "ggjt" => "GGJT",
            "algg" or "ggla" => "GGLA",
            _ => null,
        };
        throw GgufRefusal.Of(
            GgufRules.Magic, _file.Path, old is null ? "the file is not GGUF" : $"the file is {old}, a format of 2023 that GGUF replaced",
            at: 0, found: TextEscape.Escape(magic), expected: "GGUF",
            remedy: old is null ? null : "Convert the original checkpoint again, or get the model as GGUF.",
            kind: old is null ? ErrorKind.InvalidInput : ErrorKind.Unsupported);
    }

    private int ReadVersion()
    {
        if (_cursor.Remaining < sizeof(uint))
        {
            throw GgufRefusal.Of(GgufRules.Version, _file.Path, "the file ends before its version", at: 4, found: $"{_file.Length} bytes");
        }

        uint version = _cursor.ReadUInt32();
        if (version is >= 1 and <= NewestVersion) return (int)version;
        if (version != 0 && (version & 0xffff) == 0)
        {
            throw GgufRefusal.Of(
                GgufRules.Version, _file.Path, "the file is big-endian GGUF", at: 4, found: $"0x{version:x8}", expected: "a little-endian version",
                remedy: "Get the little-endian file of this model.", kind: ErrorKind.Unsupported);
        }

        throw GgufRefusal.Of(
            GgufRules.Version, _file.Path, version == 0 ? "the version is 0" : "the version is newer than supported", at: 4,
            found: $"{version}", expected: $"1 to {NewestVersion}", kind: version == 0 ? ErrorKind.InvalidInput : ErrorKind.Unsupported);
    }

    private long ReadEntryCount(string what, int smallestEntryBytes)
    {
        long at = _cursor.Position;
        long count = _cursor.ReadCount();
        if (count < 0 || count > _cursor.Remaining / smallestEntryBytes)
        {
            throw GgufRefusal.Of(
                GgufRules.Counts, _file.Path, $"the file cannot hold its {what}", at: at,
                found: $"{(ulong)count}", expected: $"at most {_cursor.Remaining / smallestEntryBytes}");
        }

        // Keys share the ceiling of tensors: both are entries that cost a fixed amount of memory each.
        long limit = _options.Limits.TensorCount;
        return count <= limit ? count : throw GgufRefusal.Limit(GgufRules.Counts, _file.Path, $"the file has more {what} than the limit", count, limit);
    }

    private GgufMetadata ReadMetadata(long keyCount)
    {
        GgufMetadata metadata = new(_file.Path);
        GgufValueReader values = new(_cursor, _options.Limits);
        string? firstOddKey = null;
        long oddKeyCount = 0;
        for (long i = 0; i < keyCount; i++)
        {
            long at = _cursor.Position;
            string key = values.ReadKey();
            if (!GgufKeys.IsWellFormed(key))
            {
                firstOddKey ??= key;
                oddKeyCount++;
            }

            if (!metadata.TryAppend(key, values.ReadValue(key)))
            {
                throw GgufRefusal.Of(GgufRules.DuplicateKey, _file.Path, "a metadata key occurs twice", key, at);
            }
        }

        if (firstOddKey is not null)
        {
            Report(GgufRules.KeySpelling, "gguf-key-spelling", $"{oddKeyCount} metadata keys are not lower snake case, first '{TextEscape.Escape(firstOddKey)}'");
        }

        if (values.FirstMalformedKey is { } malformed)
        {
            Report(GgufRules.StringLength, "gguf-string-not-utf8", $"{values.MalformedStringCount} strings are not UTF-8 and kept as bytes, first in '{TextEscape.Escape(malformed)}'");
        }

        return metadata;
    }

    private List<RawTensor> ReadTensors(long tensorCount)
    {
        List<RawTensor> tensors = [];
        HashSet<string> names = new(StringComparer.Ordinal);
        long[] dimensions = new long[_options.Limits.GgufDimensions];
        for (long i = 0; i < tensorCount; i++)
        {
            string name = ReadTensorName(names);
            long at = _cursor.Position;
            uint rank = _cursor.ReadUInt32();
            if (rank < 1 || rank > dimensions.Length)
            {
                throw GgufRefusal.Of(
                    GgufRules.Rank, _file.Path, "a tensor has an impossible number of dimensions", name, at, $"{rank}", $"1 to {dimensions.Length}");
            }

            Shape shape = ReadShape(name, dimensions.AsSpan(0, (int)rank));
            int typeId = (int)_cursor.ReadUInt32();
            tensors.Add(new RawTensor(name, shape, typeId, _cursor.ReadInt64()));
        }

        return tensors;
    }

    private string ReadTensorName(HashSet<string> names)
    {
        int longest = _options.Limits.GgufNameBytes;
        long at = _cursor.Position;
        long length = _cursor.ReadCount();
        if (length < 1 || length > longest || length > _cursor.Remaining)
        {
            throw GgufRefusal.Of(
                GgufRules.TensorName, _file.Path, "a tensor name has an impossible length", at: at, found: $"{(ulong)length} bytes", expected: $"1 to {longest} bytes");
        }

        byte[] bytes = new byte[length];
        _cursor.Read(bytes);
        if (!Utf8.IsValid(bytes) || bytes.AsSpan().Contains((byte)0))
        {
            throw GgufRefusal.Of(GgufRules.TensorName, _file.Path, "a tensor name is not UTF-8, or holds a NUL", at: at, found: TextEscape.Escape(bytes));
        }

        string name = Encoding.UTF8.GetString(bytes);
        return names.Add(name) ? name : throw GgufRefusal.Of(GgufRules.TensorName, _file.Path, "a tensor name occurs twice", name, at);
    }

    private Shape ReadShape(string name, Span<long> dimensions)
    {
        long at = _cursor.Position;
        for (int i = dimensions.Length - 1; i >= 0; i--) dimensions[i] = _cursor.ReadCount();
        if (Shape.TryCountValues(dimensions, out _)) return new Shape(dimensions);
        StringBuilder found = new();
        foreach (long dimension in dimensions) found.Append(found.Length == 0 ? "" : " x ").Append(CultureInfo.InvariantCulture, $"{(ulong)dimension}");
        throw GgufRefusal.Of(GgufRules.Dimension, _file.Path, "a tensor's dimensions overflow", name, at, found.ToString(), "a product below 2^63");
    }

    private void NoteQuantizationVersion(GgufMetadata metadata, IReadOnlyList<GgufTensorInfo> tensors)
    {
        if (metadata.Find(GgufKeys.QuantizationVersion) is not null || IsLaterPart(metadata)) return;
        if (tensors.Any(tensor => tensor.Type is { Element.IsQuantized: true }))
        {
            Report(GgufRules.QuantizationVersion, "gguf-quantization-version-missing", $"{GgufKeys.QuantizationVersion} is missing although tensors are quantized");
        }
    }

    /// <summary>Parts after the first carry no metadata but the split's own.</summary>
    private static bool IsLaterPart(GgufMetadata metadata) =>
        metadata.Find(GgufKeys.SplitNo) is { } no && no.TryGetInteger(out int index) && index > 0;

    private void Report(Rule rule, string code, string message) =>
        _options.Events.Report(new QuantEvent(code, $"{TextEscape.Escape(_file.Path)}: {message} [{rule.Id}]"));
}

/// <summary>A tensor before its place in the file is checked; <paramref name="RelativeOffset"/> counts from the data section, negative from 2^63 on.</summary>
internal readonly record struct RawTensor(string Name, Shape Shape, int TypeId, long RelativeOffset);
