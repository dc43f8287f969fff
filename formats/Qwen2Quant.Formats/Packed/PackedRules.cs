using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>The rules of checkpoints whose linear layers are packed integers.</summary>
public static class PackedRules
{
    public static readonly Rule Configuration = new("PK-1", "the quantization configuration has values that its format knows");
    public static readonly Rule Parts = new("PK-2", "a packed module has each tensor of its layout and no plain weight, and one module at least is packed");
    public static readonly Rule Shapes = new("PK-3", "the tensors of a packed module have the types and shapes that bits and groups ask for");
    public static readonly Rule Groups = new("PK-4", "g_idx names groups that there are, each for as many columns as a group has");
    public static readonly Rule SymmetricZeros = new("PK-5", "the zeros of a symmetric checkpoint are the middle code");

    public static IReadOnlyList<Rule> All { get; } = [Configuration, Parts, Shapes, Groups, SymmetricZeros];

    internal static QuantException Unknown(string path, string key, string found, string expected) => new(ErrorKind.Unsupported, $"{key} of the quantization configuration is not supported")
    {
        Rule = Configuration, Path = path, Found = found, Expected = expected, Remedy = "Use the model that this one was quantized from.",
    };
}
