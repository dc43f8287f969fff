using System.Buffers;
using System.Globalization;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>Reads rows of modules out of the container's tensors.</summary>
/// <param name="path">Of the container, for errors.</param>
internal sealed class GptqRows(bool isV2, string path)
{
    /// <summary>Rows <paramref name="firstRow"/> and on as blocks of the module's type, columns by group.</summary>
    /// <param name="firstRow">A multiple of <see cref="GptqLinear.RowGranule"/>, as is <paramref name="rowCount"/>.</param>
    public void Read(ITensorSource source, GptqLinear linear, int firstRow, int rowCount, Span<byte> rows)
    {
        int rowBytes = rows.Length / rowCount;
        ReadCodes(source, linear, firstRow, rowCount, rows, rowBytes);
        ReadZeros(source, linear, firstRow, rowCount, rows, rowBytes);
        PartLines.ReadScales(source, linear.Scales, linear.Type, linear.RowCount, firstRow, rowCount, rows);
    }

    private static void ReadCodes(ITensorSource source, GptqLinear linear, int firstRow, int rowCount, Span<byte> rows, int rowBytes)
    {
        int wordCount = GptqWords.WordCount(linear.Type, linear.RowLength);
        uint[] columns = ArrayPool<uint>.Shared.Rent(wordCount * rowCount);
        try
        {
            Span<uint> words = columns.AsSpan(0, wordCount * rowCount);
            PartLines.Read(source, linear.Codes, (long)linear.RowCount * sizeof(uint), (long)firstRow * sizeof(uint), MemoryMarshal.AsBytes(words), wordCount);
            GptqWords.ToRows(linear.Type, words, linear.RowLength, rowCount, rows);
        }
        finally
        {
            ArrayPool<uint>.Shared.Return(columns);
        }

        if (linear.ColumnOrder is not { } order) return;
        byte[] codes = new byte[2 * linear.RowLength];
        for (int row = 0; row < rowCount; row++) GptqWords.Permute(linear.Type, rows.Slice(row * rowBytes, rowBytes), order, codes);
    }

    private void ReadZeros(ITensorSource source, GptqLinear linear, int firstRow, int rowCount, Span<byte> rows, int rowBytes)
    {
        IntegerGridType type = linear.Type;
        int pieceBytes = rowCount / BitFields.Run * type.Bits;
        byte[] lines = new byte[linear.GroupCount * pieceBytes];
        PartLines.Read(source, linear.Zeros, (long)linear.RowCount / BitFields.Run * type.Bits, (long)firstRow / BitFields.Run * type.Bits, lines, linear.GroupCount);
        byte[] zeros = new byte[rowCount];
        for (int group = 0; group < linear.GroupCount; group++)
        {
            BitFields.Unpack(lines.AsSpan(group * pieceBytes, pieceBytes), type.Bits, zeros);
            for (int row = 0; row < rowCount; row++)
            {
                // Version 1 stores one less, and for 0, which not all readers take back, all ones.
                int zero = isV2 ? zeros[row] : (zeros[row] + 1) & type.LargestCode;
                if (!type.IsSymmetric) rows[(row * rowBytes) + (group * type.BytesPerBlock) + 2] = (byte)zero;
                else if (zero != type.MiddleCode) throw NotMiddle(linear, firstRow + row, group, zero);
            }
        }
    }

    private QuantException NotMiddle(GptqLinear linear, int row, int group, int zero) => new(ErrorKind.InvalidInput, "the configuration says sym, and a zero is not the middle code")
    {
        Rule = PackedRules.SymmetricZeros,
        Path = path,
        Tensor = linear.Zeros.Name,
        Found = string.Create(CultureInfo.InvariantCulture, $"zero {zero} of output {row}, group {group}"),
        Expected = string.Create(CultureInfo.InvariantCulture, $"{linear.Type.MiddleCode}"),
        Remedy = "Set sym to false, or checkpoint_format to what the file is (gptq stores zeros less one, gptq_v2 as they are).",
    };
}
