using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>Finds the packed modules of a container and checks them: rules PK-2 to PK-4.</summary>
public sealed class GptqModules : IPackedModules
{
    private static readonly string[] Suffixes = [GptqLinear.CodesSuffix, GptqLinear.ZerosSuffix, GptqLinear.ScalesSuffix, GptqLinear.GroupsSuffix];

    private readonly GptqSettings _settings;
    private readonly ModuleParts _parts;
    private readonly GptqRows _rows;

    public GptqModules(ITensorSource source, GptqSettings settings, string path)
    {
        _settings = settings;
        _parts = new ModuleParts(source, path, "bits, group_size and dynamic");
        _rows = new GptqRows(settings.IsV2, path);
    }

    public string LayoutName => $"GPTQ v{(_settings.IsV2 ? 2 : 1)}";

    public string CodesSuffix => GptqLinear.CodesSuffix;

    public bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices)
    {
        string? module = _parts.ModuleOf(entry, Suffixes);
        matrices = module is not null && entry.Name == module + GptqLinear.CodesSuffix ? [new GptqMatrix(Read(module), _rows)] : [];
        return module is not null;
    }

    /// <exception cref="QuantException">PK-2, PK-3, PK-4.</exception>
    internal GptqLinear Read(string module)
    {
        TensorEntry codes = _parts.Get(module, GptqLinear.CodesSuffix), zeros = _parts.Get(module, GptqLinear.ZerosSuffix), scales = _parts.Get(module, GptqLinear.ScalesSuffix);
        _parts.RequireNotPlain(module, GptqLinear.CodesSuffix);
        GptqModuleSettings settings = _settings.For(module) ?? throw new QuantException(ErrorKind.InvalidInput, "dynamic says that a module is plain, and it is packed")
        {
            Rule = PackedRules.Parts, Path = _parts.Path, Tensor = module,
        };
        _parts.RequireType(codes, PlainTypes.I32);
        _parts.RequireType(zeros, PlainTypes.I32);
        _parts.RequireType(scales, PlainTypes.F16, PlainTypes.BF16);
        Shape shape = MatrixShape(codes, settings.Bits);
        if (scales.Shape.Rank != 2 || scales.Shape[0] == 0 || scales.Shape[1] != shape[0]) throw _parts.Mismatch(scales, $"[groups, {shape[0]}]");
        int groupLength = GroupLength(scales, shape, settings);
        IntegerGridType type = IntegerGridType.Of(settings.Bits, groupLength, settings.IsSymmetric, scales.Type, _settings.IsV2 ? 0 : 1);
        OutputTensor[] expected = GptqLinear.Parts(module, type, shape);
        _parts.RequireShape(zeros, expected[1].Shape);
        return new GptqLinear(module, type, shape, codes, zeros, scales, _parts.Find(module + GptqLinear.GroupsSuffix) is { } groups ? GroupOrder.Read(_parts, groups, (int)shape[1], groupLength) : null);
    }

    private Shape MatrixShape(TensorEntry codes, int bits)
    {
        if (codes.Shape.Rank != 2) throw _parts.Mismatch(codes, $"[inputs x {bits} / 32, outputs]");
        (long wordRows, long outputs) = (codes.Shape[0], codes.Shape[1]);
        if (wordRows == 0 || wordRows % bits != 0) throw _parts.Mismatch(codes, $"a multiple of {bits} rows of words, for inputs of a multiple of 32 at {bits} bits");
        if (outputs == 0 || outputs % GptqLinear.RowGranule != 0) throw _parts.Mismatch(codes, $"outputs of a multiple of {GptqLinear.RowGranule}");
        long inputs = wordRows / bits * BitFields.WordRun;
        if (inputs > int.MaxValue || outputs > int.MaxValue) throw _parts.Mismatch(codes, "a matrix of at most 2^31 - 1 rows and columns");
        return new Shape(outputs, inputs);
    }

    private int GroupLength(TensorEntry scales, Shape shape, GptqModuleSettings settings)
    {
        long groups = scales.Shape[0], inputs = shape[1];
        bool isWhole = inputs % groups == 0 && inputs / groups % BitFields.WordRun == 0;
        long stated = settings.GroupSize switch { null => isWhole ? inputs / groups : 0, -1 => inputs, int size => size };
        if (isWhole && inputs / groups == stated) return (int)stated;
        throw _parts.Mismatch(scales, stated == 0 ? $"groups that divide {inputs} inputs into multiples of 32" : string.Create(CultureInfo.InvariantCulture, $"{(double)inputs / stated:0.##} groups of {stated} for {inputs} inputs"));
    }
}
