using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>Finds the packed modules of an MLX checkpoint, experts one by one, and checks them: rules PK-2 and PK-3.</summary>
public sealed class MlxModules(ITensorSource source, MlxSettings settings, string path) : IPackedModules
{
    /// <summary>Part of the names of stacked experts, and of those one by one.</summary>
    private const string Stack = ".switch_mlp.", Experts = ".experts.";

    private readonly ModuleParts _parts = new(source, path, "bits and group_size");

    public string LayoutName => "MLX";

    public string CodesSuffix => MlxMatrix.ScalesSuffix;

    public bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices)
    {
        matrices = [];
        if (entry.Name.EndsWith(MlxMatrix.ScalesSuffix, StringComparison.Ordinal) || entry.Name.EndsWith(MlxMatrix.BiasesSuffix, StringComparison.Ordinal))
        {
            _parts.Get(entry.Name[..entry.Name.LastIndexOf('.')], ModuleParts.WeightSuffix);
            return true;
        }

        if (!entry.Name.EndsWith(ModuleParts.WeightSuffix, StringComparison.Ordinal)) return false;
        string module = entry.Name[..^ModuleParts.WeightSuffix.Length];
        if (_parts.Find(module + MlxMatrix.ScalesSuffix) is not { } scales) return false;
        matrices = [.. Read(module, entry, scales)];
        return true;
    }

    /// <exception cref="QuantException">PK-2, PK-3.</exception>
    private List<MlxMatrix> Read(string module, TensorEntry codes, TensorEntry scales)
    {
        TensorEntry biases = _parts.Get(module, MlxMatrix.BiasesSuffix);
        (int bits, int group) = settings.For(module);
        _parts.RequireType(codes, PlainTypes.U32);
        _parts.RequireType(scales, PlainTypes.F16, PlainTypes.BF16);
        _parts.RequireType(biases, scales.Type);
        bool isStack = module.Contains(Stack, StringComparison.Ordinal);
        int rank = isStack ? 3 : 2;
        if (codes.Shape.Rank != rank || codes.Shape.ValueCount == 0 || codes.Shape[rank - 1] % bits != 0) throw _parts.Mismatch(codes, $"{(isStack ? "[experts, " : "[")}outputs, inputs x {bits} / 32]");
        long outputs = codes.Shape[rank - 2], inputs = codes.Shape[rank - 1] / bits * BitFields.WordRun;
        if (inputs % group != 0 || inputs > int.MaxValue || outputs > int.MaxValue) throw _parts.Mismatch(codes, $"inputs in whole groups of {group}");
        long[] lines = isStack ? [codes.Shape[0], outputs, inputs / group] : [outputs, inputs / group];
        _parts.RequireShape(scales, new Shape(lines));
        _parts.RequireShape(biases, new Shape(lines));
        AffineGridType type = AffineGridType.Of(bits, group, scales.Type);
        List<MlxMatrix> matrices = [];
        for (int expert = 0; expert < (isStack ? codes.Shape[0] : 1); expert++)
        {
            string name = isStack ? module.Replace(Stack, string.Create(CultureInfo.InvariantCulture, $"{Experts}{expert}."), StringComparison.Ordinal) : module;
            matrices.Add(new MlxMatrix(name + ModuleParts.WeightSuffix, type, new Shape(outputs, inputs), codes, scales, biases, expert));
        }

        return matrices;
    }
}
