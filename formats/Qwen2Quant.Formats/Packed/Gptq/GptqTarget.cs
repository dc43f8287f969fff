using System.Buffers;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>Where the rows of one module go in a planned GPTQ checkpoint.</summary>
/// <param name="shape">[O, I], of which <see cref="GptqLinear.Fits"/> is true.</param>
/// <param name="isV2">Stores zeros as they are, not less one.</param>
/// <param name="parts">File and place of each of <see cref="GptqLinear.Parts"/>.</param>
internal sealed class GptqTarget(IntegerGridType type, Shape shape, bool isV2, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) : PackedTarget(parts)
{
    private readonly int _rowCount = checked((int)shape[0]);
    private readonly int _rowLength = checked((int)shape[1]);

    public override int RowGranule => GptqLinear.RowGranule;

    public override void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder)
    {
        int rowBytes = checked((int)type.ByteCount(_rowLength));
        int count = rows.Length / rowBytes;
        if (firstRow % RowGranule != 0 || (count % RowGranule != 0 && firstRow + count != _rowCount)) throw new ArgumentException($"rows {firstRow} to {firstRow + count} split a word", nameof(firstRow));
        int[]? places = columnOrder.IsEmpty ? null : Sort(rows, rowBytes, columnOrder);
        WriteCodes(files, firstRow, rows, rowBytes, count, places);
        WriteZeros(files, firstRow, rows, rowBytes, count);
        WriteScales(files, 2, type, _rowCount, firstRow, count, rows);
        if (firstRow == 0) WriteGroups(files, places);
    }

    /// <summary>Brings each row into the order of a reader: inputs rise inside a group. Returns the place of each input.</summary>
    private int[] Sort(Span<byte> rows, int rowBytes, ReadOnlySpan<int> columnOrder)
    {
        if (columnOrder.Length != _rowLength) throw new ArgumentException($"an order of {columnOrder.Length} for rows of {_rowLength}", nameof(columnOrder));
        int[] from = [.. Enumerable.Range(0, _rowLength)];
        int[] keys = columnOrder.ToArray();
        for (int group = 0; group < _rowLength; group += type.GroupLength) Array.Sort(keys, from, group, type.GroupLength);
        byte[] codes = new byte[2 * _rowLength];
        for (int row = 0; row < rows.Length; row += rowBytes) GptqWords.Permute(type, rows.Slice(row, rowBytes), from, codes);
        return GptqWords.Invert(keys);
    }

    private void WriteCodes(IReadOnlyList<IWriteFile> files, long firstRow, ReadOnlySpan<byte> rows, int rowBytes, int count, int[]? places)
    {
        byte[]? unsorted = null;
        if (places is not null)
        {
            unsorted = rows.ToArray();
            byte[] codes = new byte[2 * _rowLength];
            for (int row = 0; row < unsorted.Length; row += rowBytes) GptqWords.Permute(type, unsorted.AsSpan(row, rowBytes), places, codes);
        }

        int wordCount = GptqWords.WordCount(type, _rowLength);
        uint[] columns = ArrayPool<uint>.Shared.Rent(wordCount * count);
        Span<uint> words = columns.AsSpan(0, wordCount * count);
        GptqWords.ToColumns(type, unsorted ?? rows, _rowLength, count, words);
        WriteLines(files, 0, _rowCount * sizeof(uint), firstRow * sizeof(uint), MemoryMarshal.AsBytes(words), wordCount);
        ArrayPool<uint>.Shared.Return(columns);
    }

    private void WriteZeros(IReadOnlyList<IWriteFile> files, long firstRow, ReadOnlySpan<byte> rows, int rowBytes, int count)
    {
        int groups = _rowLength / type.GroupLength, lineBytes = count / BitFields.Run * type.Bits;
        byte[] lines = new byte[groups * lineBytes];
        byte[] zeros = new byte[count];
        for (int group = 0; group < groups; group++)
        {
            for (int row = 0; row < count; row++)
            {
                int zero = type.ZeroOf(rows.Slice((row * rowBytes) + (group * type.BytesPerBlock), type.BytesPerBlock));
                zeros[row] = (byte)((isV2 ? zero : zero - 1) & type.LargestCode);
            }

            BitFields.Pack(zeros, type.Bits, lines.AsSpan(group * lineBytes, lineBytes));
        }

        WriteLines(files, 1, _rowCount / BitFields.Run * type.Bits, firstRow / BitFields.Run * type.Bits, lines, groups);
    }

    private void WriteGroups(IReadOnlyList<IWriteFile> files, int[]? places)
    {
        int[] groups = new int[_rowLength];
        for (int column = 0; column < groups.Length; column++) groups[column] = (places?[column] ?? column) / type.GroupLength;
        WritePart(files, 3, 0, MemoryMarshal.AsBytes<int>(groups));
    }
}
