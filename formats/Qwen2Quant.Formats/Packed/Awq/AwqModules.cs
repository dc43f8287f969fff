using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Gptq;

namespace Qwen2Quant.Formats.Packed.Awq;

/// <summary>Finds the packed modules of an AWQ checkpoint and checks them: rules PK-2 and PK-3.</summary>
public sealed class AwqModules(ITensorSource source, AwqSettings settings, string path) : IPackedModules
{
    private static readonly string[] Suffixes = [GptqLinear.CodesSuffix, GptqLinear.ZerosSuffix, GptqLinear.ScalesSuffix];

    private readonly ModuleParts _parts = new(source, path, "group_size");

    public string LayoutName => "AWQ GEMM";

    public string CodesSuffix => GptqLinear.CodesSuffix;

    public bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices)
    {
        string? module = _parts.ModuleOf(entry, Suffixes);
        matrices = module is not null && entry.Name == module + GptqLinear.CodesSuffix ? [Read(module)] : [];
        return module is not null;
    }

    /// <exception cref="QuantException">PK-2, PK-3.</exception>
    private AwqMatrix Read(string module)
    {
        TensorEntry codes = _parts.Get(module, GptqLinear.CodesSuffix), zeros = _parts.Get(module, GptqLinear.ZerosSuffix), scales = _parts.Get(module, GptqLinear.ScalesSuffix);
        _parts.RequireNotPlain(module, GptqLinear.CodesSuffix);
        _parts.RequireType(codes, PlainTypes.I32);
        _parts.RequireType(zeros, PlainTypes.I32);
        _parts.RequireType(scales, PlainTypes.F16, PlainTypes.BF16);
        if (codes.Shape.Rank != 2 || codes.Shape.ValueCount == 0 || codes.Shape[0] > int.MaxValue || codes.Shape[1] > int.MaxValue / AwqMatrix.Granule) throw _parts.Mismatch(codes, "[inputs, outputs / 8]");
        Shape shape = new(codes.Shape[1] * AwqMatrix.Granule, codes.Shape[0]);
        if (scales.Shape.Rank != 2 || scales.Shape[0] == 0 || scales.Shape[1] != shape[0]) throw _parts.Mismatch(scales, $"[groups, {shape[0]}]");
        (long inputs, long groups) = (shape[1], scales.Shape[0]);
        long stated = settings.GroupSize switch { null => inputs / groups, -1 => inputs, int size => size };
        if (stated == 0 || stated % BitFields.WordRun != 0 || stated * groups != inputs) throw _parts.Mismatch(scales, $"groups of {(stated == 0 ? "a multiple of 32" : stated)} for {inputs} inputs");
        IntegerGridType type = IntegerGridType.Of(4, (int)stated, isSymmetric: false, scales.Type);
        _parts.RequireShape(zeros, AwqMatrix.Parts(module, type, shape)[1].Shape);
        return new AwqMatrix(module, type, shape, codes, zeros, scales);
    }
}
