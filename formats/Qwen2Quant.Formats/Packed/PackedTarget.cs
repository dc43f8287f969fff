using System.Runtime.InteropServices;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Where the rows of one matrix go in a packed checkpoint.</summary>
/// <param name="parts">File and place of each of <see cref="PackedLayout.Parts"/>.</param>
internal abstract class PackedTarget(IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) : IScatteredTarget
{
    public abstract int RowGranule { get; }

    public long ByteLength => parts.Sum(part => part.Tensor.Tensor.ByteLength);

    protected int PartCount => parts.Count;

    public abstract void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder);

    /// <exception cref="ArgumentException">Columns are permuted.</exception>
    protected static void RequireNoOrder(ReadOnlySpan<int> columnOrder)
    {
        if (!columnOrder.IsEmpty) throw new ArgumentException("the layout keeps columns in their order", nameof(columnOrder));
    }

    protected void WritePart(IReadOnlyList<IWriteFile> files, int part, long byteOffset, ReadOnlySpan<byte> bytes) => files[parts[part].FileIndex].Write(parts[part].Tensor.ByteOffset + byteOffset, bytes);

    /// <summary>Writes a piece of each line of a part, see <see cref="PartLines"/>, or, where the pieces are whole lines, all at once.</summary>
    protected void WriteLines(IReadOnlyList<IWriteFile> files, int part, long lineBytes, long offsetInLine, ReadOnlySpan<byte> pieces, int lineCount)
    {
        int pieceBytes = pieces.Length / lineCount;
        if (pieceBytes == lineBytes)
        {
            WritePart(files, part, 0, pieces);
            return;
        }

        for (int line = 0; line < lineCount; line++) WritePart(files, part, (line * lineBytes) + offsetInLine, pieces.Slice(line * pieceBytes, pieceBytes));
    }

    /// <summary>Writes the scales [groups, O] of some rows.</summary>
    /// <param name="totalRows">O.</param>
    protected void WriteScales(IReadOnlyList<IWriteFile> files, int part, IntegerGridType type, int totalRows, long firstRow, int rowCount, ReadOnlySpan<byte> rows)
    {
        int rowBytes = rows.Length / rowCount, groups = rowBytes / type.BytesPerBlock;
        ushort[] scales = new ushort[groups * rowCount];
        for (int group = 0; group < groups; group++)
        {
            for (int row = 0; row < rowCount; row++) scales[(group * rowCount) + row] = MemoryMarshal.Read<ushort>(rows[((row * rowBytes) + (group * type.BytesPerBlock))..]);
        }

        WriteLines(files, part, totalRows * sizeof(ushort), firstRow * sizeof(ushort), MemoryMarshal.AsBytes<ushort>(scales), groups);
    }
}
