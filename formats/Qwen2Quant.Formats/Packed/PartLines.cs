using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Parts that hold a line for each group or word of inputs, [lines, O]: some outputs are a piece of every line.</summary>
internal static class PartLines
{
    /// <summary>Reads a piece of each line of a matrix, or, where the pieces are whole lines, all at once.</summary>
    public static void Read(ITensorSource source, TensorEntry entry, long lineBytes, long offsetInLine, Span<byte> pieces, int lineCount)
    {
        int pieceBytes = pieces.Length / lineCount;
        if (pieceBytes == lineBytes)
        {
            source.ReadRaw(entry, 0, pieces);
            return;
        }

        for (int line = 0; line < lineCount; line++) source.ReadRaw(entry, (line * lineBytes) + offsetInLine, pieces.Slice(line * pieceBytes, pieceBytes));
    }

    /// <summary>Reads the scales [groups, O] of some rows into their blocks.</summary>
    /// <param name="totalRows">O.</param>
    public static void ReadScales(ITensorSource source, TensorEntry entry, IntegerGridType type, int totalRows, int firstRow, int rowCount, Span<byte> rows)
    {
        int rowBytes = rows.Length / rowCount, groups = rowBytes / type.BytesPerBlock;
        ushort[] scales = new ushort[groups * rowCount];
        Read(source, entry, (long)totalRows * sizeof(ushort), (long)firstRow * sizeof(ushort), MemoryMarshal.AsBytes(scales.AsSpan()), groups);
        for (int group = 0; group < groups; group++)
        {
            for (int row = 0; row < rowCount; row++) MemoryMarshal.Write(rows[((row * rowBytes) + (group * type.BytesPerBlock))..], scales[(group * rowCount) + row]);
        }
    }
}
