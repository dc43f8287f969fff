using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>GPTQ's layout: whole groups, and outputs that fill whole words of zeros.</summary>
/// <param name="isV2">Stores zeros as they are, not less one.</param>
public sealed class GptqLayout(bool isV2) : PackedLayout
{
    public override bool Fits(ElementType type, Shape shape) => type is IntegerGridType grid && GptqLinear.Fits(grid, shape);

    public override int OutputMultiple => GptqLinear.RowGranule;

    public override IReadOnlyList<OutputTensor> Parts(string name, ElementType type, Shape shape) => GptqLinear.Parts(Module(name), (IntegerGridType)type, shape);

    public override IScatteredTarget Target(ElementType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) => new GptqTarget((IntegerGridType)type, shape, isV2, parts);
}
