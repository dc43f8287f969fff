using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>Rows of grid blocks to columns of packed words and back: a row's words, whatever group they are in, lie one under the other in the columns.</summary>
internal static class GptqWords
{
    private const int WordBytes = sizeof(uint);

    // Words of a row that are moved together: one cache line.
    private const int Tile = 16;

    public static int WordCount(IntegerGridType type, int rowLength) => rowLength / BitFields.WordRun * type.Bits;

    /// <param name="rows">Whole rows of blocks.</param>
    /// <param name="columns">[words of a row, rowCount].</param>
    public static void ToColumns(IntegerGridType type, ReadOnlySpan<byte> rows, int rowLength, int rowCount, Span<uint> columns)
    {
        ref byte first = ref MemoryMarshal.GetReference(rows);
        Walk walk = new(type, rowLength);
        for (int tile = 0; tile < walk.WordCount; tile += Tile)
        {
            int end = Math.Min(tile + Tile, walk.WordCount);
            for (int row = 0; row < rowCount; row++)
            {
                for (int word = tile; word < end; word++) columns[(word * rowCount) + row] = Unsafe.ReadUnaligned<uint>(ref Unsafe.Add(ref first, walk.ByteOffset(row, word)));
            }
        }
    }

    /// <param name="columns">[words of a row, rowCount].</param>
    /// <param name="rows">Receives the codes; scales and zeros are left as they are.</param>
    public static void ToRows(IntegerGridType type, ReadOnlySpan<uint> columns, int rowLength, int rowCount, Span<byte> rows)
    {
        ref byte first = ref MemoryMarshal.GetReference(rows);
        Walk walk = new(type, rowLength);
        for (int tile = 0; tile < walk.WordCount; tile += Tile)
        {
            int end = Math.Min(tile + Tile, walk.WordCount);
            for (int row = 0; row < rowCount; row++)
            {
                for (int word = tile; word < end; word++) Unsafe.WriteUnaligned(ref Unsafe.Add(ref first, walk.ByteOffset(row, word)), columns[(word * rowCount) + row]);
            }
        }
    }

    /// <summary>Moves the codes of one row: place k of the target holds what place <paramref name="from"/>[k] of the source held. Groups keep scale and zero.</summary>
    /// <param name="codes">Scratch of two rows.</param>
    public static void Permute(IntegerGridType type, Span<byte> row, ReadOnlySpan<int> from, Span<byte> codes)
    {
        Span<byte> source = codes[..from.Length], target = codes.Slice(from.Length, from.Length);
        int groupLength = type.GroupLength;
        for (int group = 0; group < from.Length / groupLength; group++)
        {
            BitFields.Unpack(row[((group * type.BytesPerBlock) + type.CodesOffset)..], type.Bits, source.Slice(group * groupLength, groupLength));
        }

        for (int place = 0; place < target.Length; place++) target[place] = source[from[place]];
        for (int group = 0; group < from.Length / groupLength; group++)
        {
            BitFields.Pack(target.Slice(group * groupLength, groupLength), type.Bits, row[((group * type.BytesPerBlock) + type.CodesOffset)..]);
        }
    }

    /// <summary>The place of each column of an order.</summary>
    public static int[] Invert(ReadOnlySpan<int> order)
    {
        int[] places = new int[order.Length];
        for (int place = 0; place < order.Length; place++) places[order[place]] = place;
        return places;
    }

    private readonly struct Walk(IntegerGridType type, int rowLength)
    {
        private readonly int _rowBytes = rowLength / type.GroupLength * type.BytesPerBlock;
        private readonly int _blockBytes = type.BytesPerBlock;
        private readonly int _codesOffset = type.CodesOffset;
        private readonly int _wordsPerGroup = GptqWords.WordCount(type, type.GroupLength);

        public int WordCount { get; } = GptqWords.WordCount(type, rowLength);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public nint ByteOffset(int row, int word) =>
            ((nint)row * _rowBytes) + (word / _wordsPerGroup * _blockBytes) + _codesOffset + (word % _wordsPerGroup * WordBytes);
    }
}
