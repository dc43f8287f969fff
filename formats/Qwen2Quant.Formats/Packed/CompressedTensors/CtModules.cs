using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>Finds the packed modules of a compressed-tensors checkpoint and checks them: rules PK-2 to PK-4.</summary>
public sealed class CtModules(ITensorSource source, CtSettings settings, string path) : IPackedModules
{
    internal const string PackedSuffix = ".weight_packed", ShapeSuffix = ".weight_shape", ZerosSuffix = ".weight_zero_point", GroupsSuffix = ".weight_g_idx", DivisorSuffix = ".weight_global_scale", ScaleSuffix = ".weight_scale", InverseScaleSuffix = ".weight_scale_inv", InputScaleSuffix = ".input_scale";

    /// <summary>What goes with weights, and scales of activations and of the key-value cache, which are not quantized here.</summary>
    private static readonly string[] OtherSuffixes =
    [
        ShapeSuffix, ZerosSuffix, GroupsSuffix, DivisorSuffix, InputScaleSuffix, ".input_global_scale", ".input_zero_point", ".output_scale", ".output_zero_point",
        ".q_scale", ".k_scale", ".v_scale", ".q_zero_point", ".k_zero_point", ".v_zero_point",
    ];

    private readonly ModuleParts _parts = new(source, path, "num_bits, group_size and strategy");

    public string LayoutName => settings.LayoutName;

    public string CodesSuffix => settings.ScaleSuffix;

    public bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices)
    {
        matrices = [];
        if (entry.Name.EndsWith(settings.ScaleSuffix, StringComparison.Ordinal))
        {
            string owner = entry.Name[..^settings.ScaleSuffix.Length];
            if (_parts.Find(owner + PackedSuffix) is null) _parts.Get(owner, ModuleParts.WeightSuffix);
            return true;
        }

        if (OtherSuffixes.Any(suffix => entry.Name.EndsWith(suffix, StringComparison.Ordinal))) return true;
        bool isPacked = entry.Name.EndsWith(PackedSuffix, StringComparison.Ordinal);
        if (!isPacked && !entry.Name.EndsWith(ModuleParts.WeightSuffix, StringComparison.Ordinal)) return false;
        string module = entry.Name[..^(isPacked ? PackedSuffix : ModuleParts.WeightSuffix).Length];
        if (!isPacked && _parts.Find(module + settings.ScaleSuffix) is null && !IsCode(entry.Type)) return false;
        CtWeights weights = settings.For(module) ?? throw new QuantException(ErrorKind.InvalidInput, "no group of the configuration names a module, and it is packed") { Rule = PackedRules.Parts, Path = path, Tensor = module };
        if (isPacked) _parts.RequireNotPlain(module, PackedSuffix);
        matrices = [Read(module, entry, weights)];
        return true;
    }

    /// <summary>True for types that mean nothing without a scale.</summary>
    private static bool IsCode(ElementType type) => ReferenceEquals(type, PlainTypes.F8E4M3) || ReferenceEquals(type, PlainTypes.F8E5M2) || ReferenceEquals(type, PlainTypes.I8);

    private PackedMatrix Read(string module, TensorEntry codes, CtWeights weights)
    {
        TensorEntry scales = _parts.Get(module, settings.ScaleSuffix);
        bool isPacked = codes.Name.EndsWith(PackedSuffix, StringComparison.Ordinal), packs = weights.Format is CtFormat.PackQuantized or CtFormat.Nvfp4 or CtFormat.Mxfp4;
        if (isPacked != packs) throw new QuantException(ErrorKind.InvalidInput, "a module does not have the tensors of its format") { Rule = PackedRules.Parts, Path = path, Tensor = codes.Name, Expected = module + (packs ? PackedSuffix : ModuleParts.WeightSuffix) };
        _parts.RequireType(codes, weights.Format switch { CtFormat.PackQuantized => PlainTypes.I32, CtFormat.IntQuantized => PlainTypes.I8, CtFormat.FloatQuantized or CtFormat.Mxfp8 => PlainTypes.F8E4M3, _ => PlainTypes.U8 });
        int valuesPerElement = weights.Format switch { CtFormat.PackQuantized => BitFields.WordRun / weights.Bits, CtFormat.Nvfp4 or CtFormat.Mxfp4 => 2, _ => 1 };
        if (codes.Shape.Rank != 2 || codes.Shape.ValueCount == 0 || codes.Shape[0] > int.MaxValue || codes.Shape[1] > int.MaxValue / valuesPerElement) throw _parts.Mismatch(codes, "a matrix");
        Shape shape = new(codes.Shape[0], codes.Shape[1] * valuesPerElement);
        if (weights.Format == CtFormat.PackQuantized) CheckShape(module, shape);
        return weights.Format switch
        {
            CtFormat.FloatQuantized => ReadFp8(module, codes, scales, shape, weights),
            CtFormat.Nvfp4 => ReadNvfp4(module, codes, scales, shape),
            CtFormat.Mxfp8 => ReadMxfp8(module, codes, scales, shape, weights.GroupSize),
            CtFormat.Mxfp4 => ReadMxfp4(module, codes, scales, shape),
            _ => ReadIntegers(module, codes, scales, shape, weights),
        };
    }

    private CtIntegerMatrix ReadIntegers(string module, TensorEntry codes, TensorEntry scales, Shape shape, CtWeights weights)
    {
        _parts.RequireType(scales, PlainTypes.F16, PlainTypes.BF16);
        long group = weights.GroupSize == -1 ? shape[1] : weights.GroupSize;
        if (shape[1] % group != 0 || group % BitFields.WordRun != 0) throw _parts.Mismatch(codes, $"inputs in whole groups of {(group % BitFields.WordRun != 0 ? "a multiple of 32" : group)}");
        _parts.RequireShape(scales, new Shape(shape[0], shape[1] / group));
        IntegerGridType type = IntegerGridType.Of(weights.Bits, (int)group, weights.IsSymmetric, scales.Type);
        TensorEntry? zeros = weights.IsSymmetric ? null : _parts.Get(module, ZerosSuffix);
        if (zeros is not null)
        {
            _parts.RequireType(zeros, PlainTypes.I32);
            int perWord = BitFields.WordRun / weights.Bits;
            _parts.RequireShape(zeros, new Shape((shape[0] + perWord - 1) / perWord, shape[1] / group));
        }

        return new CtIntegerMatrix(module, type, shape, codes, scales, zeros, ReadOrder(module, shape, (int)group));
    }

    private PackedMatrix ReadFp8(string module, TensorEntry codes, TensorEntry scales, Shape shape, CtWeights weights)
    {
        _parts.RequireType(scales, PlainTypes.F16, PlainTypes.BF16, PlainTypes.F32);
        if (weights.BlockStructure is { } block)
        {
            if (shape[1] % block.Columns != 0) throw _parts.Mismatch(codes, $"inputs in whole blocks of {block.Columns}");
            _parts.RequireShape(scales, new Shape((shape[0] + block.Rows - 1) / block.Rows, shape[1] / block.Columns));
            return new Fp8Matrix(module, Fp8Type.Of(block.Columns, scales.Type, block.Rows), shape, codes, scales);
        }

        if (weights.IsPerTensor)
        {
            if (shape[1] % BitFields.WordRun != 0) throw _parts.Mismatch(codes, "inputs of a multiple of 32");
            return new Fp8TensorMatrix(module, Fp8TensorType.Of(Positive(scales), scales.Type, _parts.Find(module + InputScaleSuffix) is { } inputs ? Positive(inputs) : 0), shape, codes);
        }

        _parts.RequireShape(scales, new Shape(shape[0], 1));
        return new Fp8Matrix(module, Fp8Type.Of((int)shape[1], scales.Type), shape, codes, scales);
    }

    private Fp4Matrix ReadNvfp4(string module, TensorEntry codes, TensorEntry scales, Shape shape)
    {
        RequireGroups(codes, scales, shape, Nvfp4Type.GroupLength, PlainTypes.F8E4M3);
        TensorEntry divisor = _parts.Get(module, DivisorSuffix);
        _parts.RequireType(divisor, PlainTypes.F32);
        return new Fp4Matrix(module, Nvfp4Type.Of(Positive(divisor)), shape, codes, scales);
    }

    private Fp4Matrix ReadMxfp4(string module, TensorEntry codes, TensorEntry scales, Shape shape)
    {
        ElementType type = GgmlTypes.Find("MXFP4")!.Element;
        RequireGroups(codes, scales, shape, type.ValuesPerBlock, PlainTypes.U8);
        return new Fp4Matrix(module, type, shape, codes, scales);
    }

    private Fp8Matrix ReadMxfp8(string module, TensorEntry codes, TensorEntry scales, Shape shape, int group)
    {
        RequireGroups(codes, scales, shape, group, PlainTypes.U8);
        return new Fp8Matrix(module, Fp8Type.Of(group, scales.Type), shape, codes, scales);
    }

    /// <summary>One scale of a type for each group of a row.</summary>
    private void RequireGroups(TensorEntry codes, TensorEntry scales, Shape shape, int group, ElementType scaleType)
    {
        _parts.RequireType(scales, scaleType);
        if (shape[1] % group != 0) throw _parts.Mismatch(codes, $"inputs in whole groups of {group}");
        _parts.RequireShape(scales, new Shape(shape[0], shape[1] / group));
    }

    /// <summary>The one value of a tensor, which scales everything.</summary>
    private float Positive(TensorEntry entry)
    {
        if (entry.Shape.ValueCount != 1) throw _parts.Mismatch(entry, "one value");
        float value = source.ReadAll(entry)[0];
        if (value > 0 && float.IsFinite(value)) return value;
        throw new QuantException(ErrorKind.InvalidInput, "the scale of a module is not positive") { Rule = PackedRules.Shapes, Path = path, Tensor = entry.Name, Found = $"{value}" };
    }

    private void CheckShape(string module, Shape shape)
    {
        if (_parts.Find(module + ShapeSuffix) is not { } entry) return;
        _parts.RequireType(entry, PlainTypes.I64, PlainTypes.I32);
        if (entry.Shape.ValueCount != 2) throw _parts.Mismatch(entry, "[2]");
        float[] stated = source.ReadAll(entry);
        if (stated[0] != shape[0] || stated[1] != shape[1]) throw new QuantException(ErrorKind.InvalidInput, "the shape that a packed module states is not that of its codes") { Rule = PackedRules.Shapes, Path = path, Tensor = entry.Name, Found = $"[{stated[0]}, {stated[1]}]", Expected = shape.ToString() };
    }

    private int[]? ReadOrder(string module, Shape shape, int groupLength)
    {
        if (_parts.Find(module + GroupsSuffix) is not { } entry) return null;
        // compressed-tensors fills it with -1 where no order was set.
        if (entry.Shape.ValueCount == shape[1] && ReferenceEquals(entry.Type, PlainTypes.I32) && source.ReadAll(entry).All(static group => group == -1)) return null;
        return GroupOrder.Read(_parts, entry, (int)shape[1], groupLength);
    }
}
