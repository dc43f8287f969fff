using System.Globalization;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>Finds the packed modules of a container and checks them: rules PK-2 to PK-4.</summary>
public sealed class GptqModules : IPackedModules
{
    private static readonly string[] Suffixes = [GptqLinear.CodesSuffix, GptqLinear.ZerosSuffix, GptqLinear.ScalesSuffix, GptqLinear.GroupsSuffix];

    private readonly ITensorSource _source;
    private readonly GptqSettings _settings;
    private readonly string _path;
    private readonly GptqRows _rows;

    public GptqModules(ITensorSource source, GptqSettings settings, string path)
    {
        (_source, _settings, _path) = (source, settings, path);
        _rows = new GptqRows(settings.IsV2, path);
    }

    public string LayoutName => $"GPTQ v{(_settings.IsV2 ? 2 : 1)}";

    public string CodesSuffix => GptqLinear.CodesSuffix;

    public bool TryRead(TensorEntry entry, out IReadOnlyList<PackedMatrix> matrices)
    {
        string? module = Find(entry);
        matrices = module is not null && entry.Name == module + GptqLinear.CodesSuffix ? [new GptqMatrix(Read(module), _rows)] : [];
        return module is not null;
    }

    /// <summary>The module of which a tensor is a part, or null for plain tensors.</summary>
    /// <exception cref="QuantException">PK-2: the module has no codes.</exception>
    internal string? Find(TensorEntry entry)
    {
        string? suffix = Array.Find(Suffixes, suffix => entry.Name.EndsWith(suffix, StringComparison.Ordinal));
        if (suffix is null) return null;
        string module = entry.Name[..^suffix.Length];
        if (_source.Find(module + GptqLinear.CodesSuffix) is null) throw Missing(module, GptqLinear.CodesSuffix);
        return module;
    }

    /// <exception cref="QuantException">PK-2, PK-3, PK-4.</exception>
    internal GptqLinear Read(string module)
    {
        TensorEntry codes = Part(module, GptqLinear.CodesSuffix), zeros = Part(module, GptqLinear.ZerosSuffix), scales = Part(module, GptqLinear.ScalesSuffix);
        if (_source.Find(module + GptqLinear.WeightSuffix) is not null)
        {
            throw new QuantException(ErrorKind.InvalidInput, "a module is there packed and plain")
            {
                Rule = PackedRules.Parts, Path = _path, Tensor = module + GptqLinear.WeightSuffix, Found = "also " + module + GptqLinear.CodesSuffix,
            };
        }

        GptqModuleSettings settings = _settings.For(module) ?? throw new QuantException(ErrorKind.InvalidInput, "dynamic says that a module is plain, and it is packed")
        {
            Rule = PackedRules.Parts, Path = _path, Tensor = module,
        };
        RequireType(codes, PlainTypes.I32);
        RequireType(zeros, PlainTypes.I32);
        RequireType(scales, PlainTypes.F16, PlainTypes.BF16);
        Shape shape = MatrixShape(codes, settings.Bits);
        if (scales.Shape.Rank != 2 || scales.Shape[0] == 0 || scales.Shape[1] != shape[0]) throw Mismatch(scales, $"[groups, {shape[0]}]");
        int groupLength = GroupLength(scales, shape, settings);
        IntegerGridType type = IntegerGridType.Of(settings.Bits, groupLength, settings.IsSymmetric, scales.Type, _settings.IsV2 ? 0 : 1);
        OutputTensor[] expected = GptqLinear.Parts(module, type, shape);
        if (!zeros.Shape.Equals(expected[1].Shape)) throw Mismatch(zeros, $"{expected[1].Shape}");
        return new GptqLinear(module, type, shape, codes, zeros, scales, ReadOrder(module, shape, groupLength));
    }

    private Shape MatrixShape(TensorEntry codes, int bits)
    {
        if (codes.Shape.Rank != 2) throw Mismatch(codes, $"[inputs x {bits} / 32, outputs]");
        (long wordRows, long outputs) = (codes.Shape[0], codes.Shape[1]);
        if (wordRows == 0 || wordRows % bits != 0) throw Mismatch(codes, $"a multiple of {bits} rows of words, for inputs of a multiple of 32 at {bits} bits");
        if (outputs == 0 || outputs % GptqLinear.RowGranule != 0) throw Mismatch(codes, $"outputs of a multiple of {GptqLinear.RowGranule}");
        long inputs = wordRows / bits * BitFields.WordRun;
        if (inputs > int.MaxValue || outputs > int.MaxValue) throw Mismatch(codes, "a matrix of at most 2^31 - 1 rows and columns");
        return new Shape(outputs, inputs);
    }

    private int GroupLength(TensorEntry scales, Shape shape, GptqModuleSettings settings)
    {
        long groups = scales.Shape[0], inputs = shape[1];
        bool isWhole = inputs % groups == 0 && inputs / groups % BitFields.WordRun == 0;
        long stated = settings.GroupSize switch { null => isWhole ? inputs / groups : 0, -1 => inputs, int size => size };
        if (isWhole && inputs / groups == stated) return (int)stated;
        throw Mismatch(scales, stated == 0 ? $"groups that divide {inputs} inputs into multiples of 32" : string.Create(CultureInfo.InvariantCulture, $"{(double)inputs / stated:0.##} groups of {stated} for {inputs} inputs"));
    }

    /// <summary>The inputs by group, or null where that is their order or the file has no <c>g_idx</c>.</summary>
    private int[]? ReadOrder(string module, Shape shape, int groupLength)
    {
        if (_source.Find(module + GptqLinear.GroupsSuffix) is not { } entry) return null;
        RequireType(entry, PlainTypes.I32);
        if (entry.Shape.Rank != 1 || entry.Shape[0] != shape[1]) throw Mismatch(entry, $"[{shape[1]}]");
        int[] groups = new int[shape[1]];
        _source.ReadRaw(entry, 0, MemoryMarshal.AsBytes(groups.AsSpan()));
        int[] filled = new int[groups.Length / groupLength];
        int[] order = new int[groups.Length];
        bool isSorted = true;
        for (int column = 0; column < groups.Length; column++)
        {
            int group = groups[column];
            if ((uint)group >= (uint)filled.Length) throw BadGroup(entry, $"group {group} of input {column}", $"0 to {filled.Length - 1}");
            if (filled[group] == groupLength) throw BadGroup(entry, $"input {column} as one more of group {group}", $"{groupLength} inputs a group");
            isSorted &= group == column / groupLength;
            order[(group * groupLength) + filled[group]++] = column;
        }

        return isSorted ? null : order;
    }

    private TensorEntry Part(string module, string suffix) => _source.Find(module + suffix) ?? throw Missing(module, suffix);

    private QuantException Missing(string module, string suffix) => new(ErrorKind.InvalidInput, "a packed module lacks a tensor")
    {
        Rule = PackedRules.Parts, Path = _path, Tensor = module + suffix, Remedy = "Finish the download.",
    };

    private void RequireType(TensorEntry entry, params ReadOnlySpan<ElementType> types)
    {
        foreach (ElementType type in types)
        {
            if (ReferenceEquals(entry.Type, type)) return;
        }

        throw new QuantException(ErrorKind.Unsupported, "a part of a packed module has another type")
        {
            Rule = PackedRules.Shapes, Path = _path, Tensor = entry.Name, Found = entry.Type.Name, Expected = types.Length == 1 ? types[0].Name : $"{types[0]} or {types[1]}",
        };
    }

    private QuantException Mismatch(TensorEntry entry, string expected) => new(ErrorKind.InvalidInput, "a part of a packed module does not have the shape that bits and groups ask for")
    {
        Rule = PackedRules.Shapes, Path = _path, Tensor = entry.Name, Found = entry.Shape.ToString(), Expected = expected,
        Remedy = "Check bits, group_size and dynamic of the quantization configuration.",
    };

    private QuantException BadGroup(TensorEntry entry, string found, string expected) => new(ErrorKind.InvalidInput, "g_idx does not deal the inputs to groups")
    {
        Rule = PackedRules.Groups, Path = _path, Tensor = entry.Name, Found = found, Expected = expected,
    };
}
