using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// The older format of llama-imatrix: entries of name, calls, count of values and values (mean squares times calls), then the number of
/// windows and the text's name, which the oldest files do not have. It tells neither experts nor rows: a call is taken as one window of
/// <see cref="Imatrix.DefaultChunkSize"/> tokens, which cancels out where means are taken.
/// </summary>
internal sealed class ImatrixDatReader
{
    private const int LongestName = 4096;
    private static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private readonly byte[] _bytes;
    private readonly string _path;
    private int _position;

    private ImatrixDatReader(byte[] bytes, string path)
    {
        _bytes = bytes;
        _path = path;
    }

    private int Remaining => _bytes.Length - _position;

    /// <summary>What a length that is read next may span.</summary>
    private int BytesBehindNumber => Math.Max(Remaining - sizeof(int), 0);

    public static Imatrix Read(IReadFile file, Limits limits)
    {
        if (file.Length > Array.MaxLength) throw GgufRefusal.Limit(ImatrixRules.Layout, file.Path, "the file is too long for an importance matrix", file.Length, Array.MaxLength);
        byte[] bytes = new byte[file.Length];
        file.ReadExactly(0, bytes);
        return new ImatrixDatReader(bytes, file.Path).ReadAll(limits);
    }

    private Imatrix ReadAll(Limits limits)
    {
        int entryCount = Number("the number of entries", 1, (int)Math.Min(limits.TensorCount, int.MaxValue));
        SortedDictionary<string, ImatrixEntry> entries = new(StringComparer.Ordinal);
        for (int i = 0; i < entryCount; i++)
        {
            ImatrixEntry entry = Entry();
            if (!entries.TryAdd(entry.Name, entry)) throw Refused("two entries have the name", entry.Name);
        }

        int chunkCount = Remaining == 0 ? 0 : Number("the number of windows", 0, int.MaxValue);
        string dataset = Remaining == 0 ? "" : Text("the text's name", 0, int.MaxValue);
        if (Remaining > 0) throw Refused("bytes follow the end of the importance matrix", found: $"{Remaining} bytes");
        return new Imatrix([.. entries.Values], dataset.Length == 0 ? [] : [dataset], chunkCount, 0);
    }

    private ImatrixEntry Entry()
    {
        string name = Text("a name", 1, LongestName);
        int calls = Number("the number of calls", int.MinValue, int.MaxValue);
        int valueCount = Number("the number of values", 1, BytesBehindNumber / sizeof(float));
        float[] sums = MemoryMarshal.Cast<byte, float>(Take(valueCount * sizeof(float))).ToArray();
        for (int i = 0; i < sums.Length; i++) sums[i] *= Imatrix.DefaultChunkSize;
        return new ImatrixEntry(name, sums, [(long)calls * Imatrix.DefaultChunkSize]);
    }

    private int Number(string what, int smallest, int largest)
    {
        int start = _position;
        if (Remaining < sizeof(int)) throw Refused($"the file ends before {what}", found: $"{Remaining} bytes");
        int value = BinaryPrimitives.ReadInt32LittleEndian(Take(sizeof(int)));
        if (value >= smallest && value <= largest) return value;
        _position = start;
        throw Refused($"{what} is impossible", found: $"{value}", expected: $"{smallest} to {largest}");
    }

    private string Text(string what, int shortest, int longest)
    {
        int length = Number($"the length of {what}", shortest, Math.Min(longest, BytesBehindNumber));
        try
        {
            return StrictUtf8.GetString(Take(length));
        }
        catch (DecoderFallbackException)
        {
            throw Refused($"{what} is not UTF-8");
        }
    }

    private ReadOnlySpan<byte> Take(int count)
    {
        _position += count;
        return _bytes.AsSpan(_position - count, count);
    }

    private QuantException Refused(string summary, string? subject = null, string? found = null, string? expected = null) => GgufRefusal.Of(
        ImatrixRules.Layout, _path, summary, subject, at: _position, found: found, expected: expected, remedy: "The file is cut short, or is no importance matrix.");
}
