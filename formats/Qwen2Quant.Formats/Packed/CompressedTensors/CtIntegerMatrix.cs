using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Gptq;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>
/// Integers of compressed-tensors, a linear of I inputs and O outputs in G groups: <c>weight_packed</c> I32 [O, I x bits / 32], or <c>weight</c> I8 [O, I]; codes are signed, in
/// words with 2^(bits - 1) added; <c>weight_scale</c> [O, G]; <c>weight_zero_point</c> I32 [O x bits / 32, G], words along the outputs.
/// </summary>
internal sealed class CtIntegerMatrix(string module, IntegerGridType type, Shape shape, TensorEntry codes, TensorEntry scales, TensorEntry? zeros, int[]? order) : PackedMatrix(module + ModuleParts.WeightSuffix, type, shape, codes)
{
    /// <summary>Turns a signed byte into an unsigned one with 128 added, and back.</summary>
    private const byte SignBit = 0x80;

    private IntegerGridType Grid => (IntegerGridType)Type;

    private bool IsBytes => ReferenceEquals(Codes.Type, PlainTypes.I8);

    public override int RowGranule => zeros is null ? 1 : BitFields.WordRun / Grid.Bits;

    public override int[]? ColumnOrder => order;

    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows)
    {
        int rowBytes = rows.Length / rowCount, groups = rowBytes / Grid.BytesPerBlock, codeBytes = Grid.GroupLength / BitFields.Run * Grid.Bits;
        byte[] packed = new byte[rowCount * groups * codeBytes];
        source.ReadRaw(Codes, (long)firstRow * groups * codeBytes, packed);
        if (IsBytes) FlipSigns(packed);
        ushort[] scale = new ushort[rowCount * groups];
        source.ReadRaw(scales, (long)firstRow * groups * sizeof(ushort), MemoryMarshal.AsBytes(scale.AsSpan()));
        uint[] words = zeros is null ? [] : new uint[(rowCount + RowGranule - 1) / RowGranule * groups];
        if (zeros is not null) source.ReadRaw(zeros, (long)(firstRow / RowGranule) * groups * sizeof(uint), MemoryMarshal.AsBytes(words.AsSpan()));
        byte[] scratch = order is null ? [] : new byte[2 * groups * Grid.GroupLength];
        for (int row = 0; row < rowCount; row++)
        {
            for (int group = 0; group < groups; group++)
            {
                Span<byte> block = rows.Slice((row * rowBytes) + (group * Grid.BytesPerBlock), Grid.BytesPerBlock);
                int at = (row * groups) + group;
                MemoryMarshal.Write(block, scale[at]);
                if (zeros is not null) block[sizeof(ushort)] = (byte)((words[(row / RowGranule * groups) + group] >> (row % RowGranule * Grid.Bits)) & Grid.LargestCode);
                packed.AsSpan(at * codeBytes, codeBytes).CopyTo(block[Grid.CodesOffset..]);
            }

            if (order is not null) GptqWords.Permute(Grid, rows.Slice(row * rowBytes, rowBytes), order, scratch);
        }
    }

    public static void FlipSigns(Span<byte> bytes)
    {
        foreach (ref byte value in bytes) value ^= SignBit;
    }
}
