using System.Buffers.Binary;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>A slab that was written: the checksum of its bytes, and what encoding them lost.</summary>
internal readonly record struct WrittenSlab(ulong Checksum, ErrorSums Sums);

/// <summary>
/// The slabs of an output that are written, in a file of records of 48 bytes, each with a checksum of its own: index, checksum of the bytes, squared error, squared value, value
/// count. A record follows its bytes, so a killed run loses no more than the slabs at work; after a power cut bytes may be missing, which their checksum shows. Nothing is flushed.
/// </summary>
internal sealed class SlabJournal : IDisposable
{
    private const int RecordBytes = 48, CheckOffset = 40;
    private const string Prefix = "slabs-";

    private readonly IWriteFile _file;
    private readonly Lock _lock = new();
    private long _length;

    private SlabJournal(IWriteFile file, long length, IReadOnlyDictionary<int, WrittenSlab> written)
    {
        _file = file;
        _length = length;
        Written = written;
    }

    /// <summary>What earlier runs, and others that share the work, had written when this was opened.</summary>
    public IReadOnlyDictionary<int, WrittenSlab> Written { get; }

    /// <summary>Opens the journals of a folder, and goes on in that of one part.</summary>
    public static SlabJournal Open(IFileLayer files, string folder, int part)
    {
        Dictionary<int, WrittenSlab> written = [];
        string own = Prefix + part;
        long length = 0;
        foreach (string name in files.ListTyped(folder).Where(name => name.StartsWith(Prefix, StringComparison.Ordinal)))
        {
            using IReadFile file = files.OpenTyped(Path.Combine(folder, name));
            byte[] bytes = new byte[file.Length / RecordBytes * RecordBytes];
            file.ReadExactly(0, bytes);
            for (int offset = 0; offset < bytes.Length; offset += RecordBytes)
            {
                if (Parse(bytes.AsSpan(offset, RecordBytes)) is { } record) written[record.Index] = record.Slab;
            }

            if (name == own) length = bytes.Length;
        }

        string path = Path.Combine(folder, own);
        try
        {
            return new SlabJournal(files.OpenWrite(path, length), length, written);
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw PendingOutput.Failed(path, error);
        }
    }

    /// <summary>Adds a slab whose bytes are written. Thread-safe.</summary>
    /// <exception cref="IOException">The disk fails.</exception>
    public void Append(int index, ulong checksum, ErrorSums sums)
    {
        Span<byte> record = stackalloc byte[RecordBytes];
        BinaryPrimitives.WriteInt64LittleEndian(record, index);
        BinaryPrimitives.WriteUInt64LittleEndian(record[8..], checksum);
        BinaryPrimitives.WriteDoubleLittleEndian(record[16..], sums.SquaredError);
        BinaryPrimitives.WriteDoubleLittleEndian(record[24..], sums.SquaredValue);
        BinaryPrimitives.WriteInt64LittleEndian(record[32..], sums.ValueCount);
        BinaryPrimitives.WriteUInt64LittleEndian(record[CheckOffset..], SlabChecksum.Compute(record[..CheckOffset]));
        lock (_lock)
        {
            _file.Write(_length, record);
            _length += RecordBytes;
        }
    }

    public void Dispose() => _file.Dispose();

    private static (int Index, WrittenSlab Slab)? Parse(ReadOnlySpan<byte> record)
    {
        if (BinaryPrimitives.ReadUInt64LittleEndian(record[CheckOffset..]) != SlabChecksum.Compute(record[..CheckOffset])) return null;
        ErrorSums sums = new(BinaryPrimitives.ReadDoubleLittleEndian(record[16..]), BinaryPrimitives.ReadDoubleLittleEndian(record[24..]), BinaryPrimitives.ReadInt64LittleEndian(record[32..]));
        return ((int)BinaryPrimitives.ReadInt64LittleEndian(record), new WrittenSlab(BinaryPrimitives.ReadUInt64LittleEndian(record[8..]), sums));
    }
}
