using System.Buffers.Binary;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// What a safetensors file says about itself, read and checked whole (rules ST-1 to ST-30). It holds no handle:
/// <see cref="SafetensorsCheckpoint"/> reads values.
/// </summary>
/// <remarks>
/// Time is linear in the header. Memory while opening is the header's bytes and about 220 bytes for each tensor with a short name;
/// the header's bytes are let go afterwards.
/// </remarks>
public sealed class SafetensorsFile
{
    private readonly Dictionary<string, int> _indexOf;

    private SafetensorsFile(IReadFile file, long dataByteOffset, SafetensorsHeaderParser header)
    {
        Path = file.Path;
        ByteLength = file.Length;
        DataByteOffset = dataByteOffset;
        Tensors = header.Tensors;
        Metadata = header.Metadata;
        _indexOf = header.IndexOf;
    }

    public string Path { get; }

    /// <summary>Bytes of the whole file.</summary>
    public long ByteLength { get; }

    /// <summary>First byte after the header: where offset 0 of the format lies.</summary>
    public long DataByteOffset { get; }

    /// <summary>All tensors by rising offset. A dtype that the format does not know has a type that is sized and cannot be decoded.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    /// <summary>The strings of <c>__metadata__</c>, in the file's order; empty when there are none.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>The tensor of that name, or null.</summary>
    public TensorEntry? Find(string name) => _indexOf.TryGetValue(name, out int index) ? Tensors[index] : null;

    /// <summary>Reads and checks the header of <paramref name="file"/>, which stays the caller's.</summary>
    /// <exception cref="QuantException">A rule of <see cref="SafetensorsRules"/> or <see cref="WeightFileRules"/> is broken, or the file cannot be read.</exception>
    public static SafetensorsFile Open(IReadFile file, ReadOptions options) => Open(file, options, fileIndex: 0);

    internal static SafetensorsFile Open(IReadFile file, ReadOptions options, int fileIndex)
    {
        int headerLength = ReadHeaderLength(file, options);
        byte[] header = new byte[headerLength];
        file.ReadExactly(SafetensorsHeaderParser.HeaderByteOffset, header);
        long dataByteOffset = SafetensorsHeaderParser.HeaderByteOffset + (long)headerLength;
        SafetensorsHeaderParser parser = new(file.Path, dataByteOffset, fileIndex, options.Limits);
        parser.Parse(header);
        parser.CheckLayout(file.Length);
        return new SafetensorsFile(file, dataByteOffset, parser);
    }

    /// <summary>The header's length, after every check that needs no more than the first bytes: nothing is allocated by a number that is not yet checked.</summary>
    private static int ReadHeaderLength(IReadFile file, ReadOptions options)
    {
        if (file.Length == 0) throw Fail(file, SafetensorsRules.NotEmpty, "the file is empty");
        if (file.Length < SafetensorsHeaderParser.HeaderByteOffset)
        {
            throw Fail(file, SafetensorsRules.HasLengthField, "the file is shorter than the header's length field", $"{file.Length} bytes", "at least 8 bytes");
        }

        Span<byte> prefix = stackalloc byte[(int)Math.Min(WeightFilePrefix.Length, file.Length)];
        file.ReadExactly(0, prefix);
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        long maximum = Math.Min(options.Limits.HeaderBytes, Array.MaxLength);
        if (length > (ulong)maximum)
        {
            if (WeightFilePrefix.Recognise(file.Path, prefix) is { } recognised) throw recognised;
            Rule rule = length > long.MaxValue ? SafetensorsRules.HeaderLengthUnsigned : SafetensorsRules.HeaderWithinLimit;
            throw Fail(file, rule, "the header's length is beyond the limit", $"{length} ('{TextEscape.Escape(prefix[..8])}')", $"at most {maximum}");
        }

        if (length == 0) throw Fail(file, SafetensorsRules.HeaderNotEmpty, "the header's length is 0");
        long available = file.Length - SafetensorsHeaderParser.HeaderByteOffset;
        if ((long)length > available)
        {
            throw Fail(file, SafetensorsRules.HeaderInFile, "the header is truncated", $"{available} bytes", $"{length} bytes", "Download or copy the file again.");
        }

        if (prefix[8] != (byte)'{')
        {
            throw Fail(file, SafetensorsRules.HeaderIsObject, "the header does not start with '{'", $"'{TextEscape.Escape(prefix[8..])}'", byteOffset: 8);
        }

        return (int)length;
    }

    private static QuantException Fail(
        IReadFile file, Rule rule, string summary, string? found = null, string? expected = null, string? remedy = null, long byteOffset = 0) =>
        new(ErrorKind.InvalidInput, summary)
        {
            Rule = rule,
            Path = file.Path,
            ByteOffset = byteOffset,
            Found = found,
            Expected = expected,
            Remedy = remedy,
        };
}
