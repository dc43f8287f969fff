using System.Buffers.Binary;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>
/// Where things lie in llama-perplexity's base file (<c>--kl-divergence-base</c>). Little-endian: 8 bytes of magic, int32 context,
/// vocabulary size and number of chunks, int32 tokens [chunks, context] as the text has them, then for each chunk one record for each of
/// the positions <c>context / 2</c> to <c>context - 2</c>. A record is a scale and the least log-probability (float32) and one 16-bit code
/// for each token of the vocabulary, with one more unused where that number is odd.
/// </summary>
/// <param name="Context">Tokens of one window, 3 at least.</param>
/// <param name="VocabularySize">Padding ids included.</param>
/// <param name="ChunkCount">Windows.</param>
public sealed record LogitFileLayout(int Context, int VocabularySize, int ChunkCount)
{
    /// <summary>Bytes before the tokens.</summary>
    public const int PrefixBytes = 20;

    /// <summary>The smallest context of which a position is scored.</summary>
    public const int SmallestContext = 3;

    internal const int ContextOffset = 8, VocabularyOffset = 12, ChunkOffset = 16;

    /// <summary>The first 8 bytes.</summary>
    public static ReadOnlySpan<byte> Magic => "_logits_"u8;

    /// <summary>The first position of a window that has a record.</summary>
    public int FirstPosition => Context / 2;

    public int RecordsPerChunk => Context - 1 - FirstPosition;

    public long RecordBytes => LogitRecord.HeadBytes + (2L * sizeof(ushort) * ((VocabularySize + 1L) / 2));

    public long TokenCount => (long)ChunkCount * Context;

    /// <summary>Bytes before the first record.</summary>
    public long HeaderBytes => PrefixBytes + (sizeof(int) * TokenCount);

    /// <summary>Bytes of the whole file; <see cref="long.MaxValue"/> for more than any file has.</summary>
    public long ByteLength =>
        CheckedMath.TryMultiply((long)ChunkCount * RecordsPerChunk, RecordBytes, out long records) && CheckedMath.TryAdd(HeaderBytes, records, out long length)
            ? length
            : long.MaxValue;

    /// <summary>The byte at which the record of a window's position begins.</summary>
    public long RecordOffset(int chunk, int position) =>
        HeaderBytes + ((((long)chunk * RecordsPerChunk) + (position - FirstPosition)) * RecordBytes);

    /// <summary>What the first <see cref="PrefixBytes"/> bytes of a file say.</summary>
    internal static LogitFileLayout Parse(ReadOnlySpan<byte> prefix) => new(
        BinaryPrimitives.ReadInt32LittleEndian(prefix[ContextOffset..]),
        BinaryPrimitives.ReadInt32LittleEndian(prefix[VocabularyOffset..]),
        BinaryPrimitives.ReadInt32LittleEndian(prefix[ChunkOffset..]));

    /// <summary>The <see cref="HeaderBytes"/> bytes before the records, for the windows of <paramref name="plan"/>.</summary>
    public byte[] Header(WindowPlan plan)
    {
        byte[] header = new byte[HeaderBytes];
        Magic.CopyTo(header);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(ContextOffset), Context);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(VocabularyOffset), VocabularySize);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(ChunkOffset), ChunkCount);
        int offset = PrefixBytes;
        for (int window = 0; window < plan.WindowCount; window++)
        {
            foreach (int token in plan.Tokens(window))
            {
                BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(offset), token);
                offset += sizeof(int);
            }
        }

        return header;
    }
}
