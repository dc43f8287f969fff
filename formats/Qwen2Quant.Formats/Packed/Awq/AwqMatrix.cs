using System.Buffers;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Gptq;

namespace Qwen2Quant.Formats.Packed.Awq;

/// <summary>
/// One packed module of an AWQ checkpoint of the GEMM version, a linear of I inputs and O outputs in G groups: <c>qweight</c> I32 [I, O / 8] and <c>qzeros</c>
/// I32 [G, O / 8], both with eight outputs to a word; <c>scales</c> F16 [G, O]. Zeros are stored as they are.
/// </summary>
internal sealed class AwqMatrix(string module, IntegerGridType type, Shape shape, TensorEntry codes, TensorEntry zeros, TensorEntry scales) : PackedMatrix(module + ModuleParts.WeightSuffix, type, shape, codes)
{
    public const int Granule = AwqWords.Outputs;

    private IntegerGridType Grid => (IntegerGridType)Type;

    private int TotalRows => (int)Shape[0];

    public override int RowGranule => Granule;

    /// <summary>The tensors that a module of that type and shape [O, I] is written as.</summary>
    public static OutputTensor[] Parts(string module, IntegerGridType type, Shape shape)
    {
        (long rows, long columns) = (shape[0], shape[1]);
        long groups = columns / type.GroupLength;
        return
        [
            new OutputTensor(module + GptqLinear.CodesSuffix, PlainTypes.I32, new Shape(columns, rows / Granule)),
            new OutputTensor(module + GptqLinear.ZerosSuffix, PlainTypes.I32, new Shape(groups, rows / Granule)),
            new OutputTensor(module + GptqLinear.ScalesSuffix, type.ScaleType, new Shape(groups, rows)),
        ];
    }

    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows)
    {
        int rowLength = (int)Shape[1], wordCount = rowCount / Granule, rowBytes = rows.Length / rowCount, groups = rowLength / Grid.GroupLength;
        long lineBytes = TotalRows / Granule * sizeof(uint), offset = firstRow / Granule * sizeof(uint);
        uint[] rented = ArrayPool<uint>.Shared.Rent(rowLength * wordCount);
        Span<uint> lines = rented.AsSpan(0, rowLength * wordCount);
        PartLines.Read(source, Codes, lineBytes, offset, MemoryMarshal.AsBytes(lines), rowLength);
        AwqWords.ToRows(Grid, lines, rowLength, rowCount, rows);
        lines = lines[..(groups * wordCount)];
        PartLines.Read(source, zeros, lineBytes, offset, MemoryMarshal.AsBytes(lines), groups);
        for (int group = 0; group < groups; group++)
        {
            for (int row = 0; row < rowCount; row++)
            {
                uint word = AwqWords.ToNatural(lines[(group * wordCount) + (row / Granule)]);
                rows[(row * rowBytes) + (group * Grid.BytesPerBlock) + sizeof(ushort)] = (byte)((word >> (row % Granule * 4)) & 15);
            }
        }

        ArrayPool<uint>.Shared.Return(rented);
        PartLines.ReadScales(source, scales, Grid, TotalRows, firstRow, rowCount, rows);
    }
}
