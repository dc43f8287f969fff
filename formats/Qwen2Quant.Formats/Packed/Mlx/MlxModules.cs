using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>Finds the packed modules of an MLX checkpoint, stacks of experts as the matrices of each, and checks them: rules PK-2 and PK-3.</summary>
public sealed class MlxModules(ITensorSource source, MlxSettings settings, string path) : IPackedModules
{
    private readonly ModuleParts _parts = new(source, path, "bits and group_size");

    public string LayoutName => "MLX";

    public string CodesSuffix => MlxMatrix.ScalesSuffix;

    public bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices)
    {
        matrices = [];
        if (entry.Name.EndsWith(MlxMatrix.ScalesSuffix, StringComparison.Ordinal) || entry.Name.EndsWith(MlxMatrix.BiasesSuffix, StringComparison.Ordinal))
        {
            string owner = entry.Name[..entry.Name.LastIndexOf('.')];
            _parts.Get(owner, ModuleParts.WeightSuffix);
            _parts.Get(owner, MlxMatrix.ScalesSuffix);
            return true;
        }

        if (!entry.Name.EndsWith(ModuleParts.WeightSuffix, StringComparison.Ordinal)) return false;
        string module = entry.Name[..^ModuleParts.WeightSuffix.Length];
        if (_parts.Find(module + MlxMatrix.ScalesSuffix) is not { } scales) return false;
        matrices = Read(module, entry, scales);
        return true;
    }

    /// <exception cref="QuantException">PK-2, PK-3.</exception>
    private List<MlxMatrix> Read(string module, TensorEntry codes, TensorEntry scales)
    {
        TensorEntry biases = _parts.Get(module, MlxMatrix.BiasesSuffix);
        // Experts one by one have the settings of the stack that mlx-lm makes of them.
        string path = MlxExperts.StackOf(codes.Name) is { } place ? PackedLayout.Module(place.Name) : module;
        (int bits, int group) = settings.For(path) ?? throw new QuantException(ErrorKind.InvalidInput, "the configuration says that a module is plain, and it is packed")
        {
            Rule = PackedRules.Parts, Path = _parts.Path, Tensor = module,
        };
        _parts.RequireType(codes, PlainTypes.U32);
        _parts.RequireType(scales, PlainTypes.F16, PlainTypes.BF16);
        _parts.RequireType(biases, scales.Type);
        bool isStack = MlxExperts.IsStack(module);
        int rank = isStack ? 3 : 2;
        if (codes.Shape.Rank != rank || codes.Shape.ValueCount == 0 || codes.Shape[rank - 1] % bits != 0) throw _parts.Mismatch(codes, $"{(isStack ? "[experts, " : "[")}outputs, inputs x {bits} / 32]");
        long outputs = codes.Shape[rank - 2], inputs = codes.Shape[rank - 1] / bits * BitFields.WordRun;
        if (inputs % group != 0 || inputs > int.MaxValue || outputs > int.MaxValue) throw _parts.Mismatch(codes, $"inputs in whole groups of {group}");
        long[] lines = isStack ? [codes.Shape[0], outputs, inputs / group] : [outputs, inputs / group];
        _parts.RequireShape(scales, new Shape(lines));
        _parts.RequireShape(biases, new Shape(lines));
        AffineGridType type = AffineGridType.Of(bits, group, scales.Type);
        Shape shape = new(outputs, inputs);
        if (!isStack) return [new MlxMatrix(codes.Name, type, shape, codes, scales, biases)];
        List<MlxMatrix> matrices = [];
        for (long expert = 0; expert < codes.Shape[0]; expert++)
        {
            matrices.Add(new MlxMatrix(MlxExperts.NameOf(codes.Name, expert), type, shape, codes.Slice(codes.Name, expert), scales.Slice(scales.Name, expert), biases.Slice(biases.Name, expert)));
        }

        return matrices;
    }
}
