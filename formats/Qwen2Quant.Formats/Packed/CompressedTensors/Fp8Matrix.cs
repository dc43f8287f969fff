using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>E4M3 bytes [O, I] under scales: one for each output, for each group of its inputs, or for each tile.</summary>
internal sealed class Fp8Matrix(string module, Fp8Type type, Shape shape, TensorEntry codes, TensorEntry scales) : PackedMatrix(module + ModuleParts.WeightSuffix, type, shape, codes)
{
    private Fp8Type Grid => (Fp8Type)Type;

    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows)
    {
        int rowBytes = rows.Length / rowCount, groups = rowBytes / Grid.BytesPerBlock, scaleBytes = scales.Type.BytesPerBlock, rowLength = (int)Shape[1];
        byte[] values = new byte[rowCount * rowLength];
        source.ReadRaw(Codes, (long)firstRow * rowLength, values);
        int rowsPerScale = Grid.RowsPerScale;
        int firstLine = firstRow / rowsPerScale, lineCount = ((firstRow + rowCount - 1) / rowsPerScale) - firstLine + 1;
        byte[] scale = new byte[lineCount * groups * scaleBytes];
        source.ReadRaw(scales, (long)firstLine * groups * scaleBytes, scale);
        for (int row = 0; row < rowCount; row++)
        {
            for (int group = 0; group < groups; group++)
            {
                Span<byte> block = rows.Slice((row * rowBytes) + (group * Grid.BytesPerBlock), Grid.BytesPerBlock);
                int line = ((firstRow + row) / rowsPerScale) - firstLine;
                scale.AsSpan(((line * groups) + group) * scaleBytes, scaleBytes).CopyTo(block);
                values.AsSpan((row * rowLength) + (group * Grid.GroupLength), Grid.GroupLength).CopyTo(block[scaleBytes..]);
            }
        }
    }
}

/// <summary>E4M3 bytes [O, I] under one scale.</summary>
internal sealed class Fp8TensorMatrix(string module, Fp8TensorType type, Shape shape, TensorEntry codes) : PackedMatrix(module + ModuleParts.WeightSuffix, type, shape, codes)
{
    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows) => source.ReadRaw(Codes, firstRow * Shape[1], rows);
}
