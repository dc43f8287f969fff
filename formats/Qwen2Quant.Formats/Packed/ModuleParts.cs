using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>The tensors of packed modules in a container, with the refusals that all layouts share: rules PK-2 and PK-3.</summary>
/// <param name="path">Shown in errors.</param>
/// <param name="keys">The keys of the configuration that shapes depend on, for messages.</param>
internal sealed class ModuleParts(ITensorSource source, string path, string keys)
{
    public const string WeightSuffix = ".weight";

    public ITensorSource Source => source;

    public string Path => path;

    public TensorEntry? Find(string name) => source.Find(name);

    /// <exception cref="QuantException">PK-2: there is none.</exception>
    public TensorEntry Get(string module, string suffix) => Find(module + suffix) ?? throw new QuantException(ErrorKind.InvalidInput, "a packed module lacks a tensor")
    {
        Rule = PackedRules.Parts, Path = path, Tensor = module + suffix, Remedy = "Finish the download.",
    };

    /// <summary>The module of which a tensor is a part, by the ends of names; null for plain tensors.</summary>
    /// <param name="suffixes">The first is that of the codes.</param>
    /// <exception cref="QuantException">PK-2: the module has no codes.</exception>
    public string? ModuleOf(TensorEntry entry, ReadOnlySpan<string> suffixes)
    {
        foreach (string suffix in suffixes)
        {
            if (!entry.Name.EndsWith(suffix, StringComparison.Ordinal)) continue;
            string module = entry.Name[..^suffix.Length];
            Get(module, suffixes[0]);
            return module;
        }

        return null;
    }

    /// <exception cref="QuantException">PK-2: the module is there plain, too.</exception>
    public void RequireNotPlain(string module, string codesSuffix)
    {
        if (Find(module + WeightSuffix) is null) return;
        throw new QuantException(ErrorKind.InvalidInput, "a module is there packed and plain")
        {
            Rule = PackedRules.Parts, Path = path, Tensor = module + WeightSuffix, Found = "also " + module + codesSuffix,
        };
    }

    /// <exception cref="QuantException">PK-3.</exception>
    public void RequireType(TensorEntry entry, params ReadOnlySpan<ElementType> types)
    {
        foreach (ElementType type in types)
        {
            if (ReferenceEquals(entry.Type, type)) return;
        }

        throw new QuantException(ErrorKind.Unsupported, "a part of a packed module has another type")
        {
            Rule = PackedRules.Shapes, Path = path, Tensor = entry.Name, Found = entry.Type.Name, Expected = string.Join(" or ", types.ToArray().Select(type => type.Name)),
        };
    }

    /// <exception cref="QuantException">PK-3.</exception>
    public void RequireShape(TensorEntry entry, Shape shape)
    {
        if (!entry.Shape.Equals(shape)) throw Mismatch(entry, shape.ToString());
    }

    public QuantException Mismatch(TensorEntry entry, string expected) => new(ErrorKind.InvalidInput, "a part of a packed module does not have the shape that bits and groups ask for")
    {
        Rule = PackedRules.Shapes, Path = path, Tensor = entry.Name, Found = entry.Shape.ToString(), Expected = expected, Remedy = $"Check {keys} of the quantization configuration.",
    };
}
