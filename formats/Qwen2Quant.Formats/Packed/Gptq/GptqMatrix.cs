using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>A module as a matrix that is read row by row.</summary>
internal sealed class GptqMatrix(GptqLinear linear, GptqRows rows) : PackedMatrix(linear.Name + ModuleParts.WeightSuffix, linear.Type, linear.Shape, linear.Codes)
{
    public override int RowGranule => GptqLinear.RowGranule;

    public override int[]? ColumnOrder => linear.ColumnOrder;

    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> target) => rows.Read(source, linear, firstRow, rowCount, target);
}
