using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>A row of ggml's type table: the id in files and what the bytes mean.</summary>
public sealed record GgmlType(int Id, ElementType Element)
{
    public string Name => Element.Name;
}

/// <summary>The catalogue of ggml tensor types, in the order of their ids. Ids 4, 5, 31 to 33 and 36 to 38 were removed from ggml.</summary>
public static class GgmlTypes
{
    public static IReadOnlyList<GgmlType> All { get; } =
    [
        new(0, PlainTypes.F32),
        new(1, PlainTypes.F16),
        new(24, PlainTypes.I8),
        new(25, PlainTypes.I16),
        new(26, PlainTypes.I32),
        new(27, PlainTypes.I64),
        new(28, PlainTypes.F64),
        new(30, PlainTypes.BF16),
    ];

    /// <summary>The type of that id, or null when ggml has none or removed it.</summary>
    public static GgmlType? Find(int id) => All.FirstOrDefault(type => type.Id == id);

    /// <summary>The type of that name in any case, or null.</summary>
    public static GgmlType? Find(string name) => All.FirstOrDefault(type => type.Name.Equals(name, StringComparison.OrdinalIgnoreCase));

    /// <summary>The row of an element type, or null when ggml does not have it.</summary>
    public static GgmlType? Of(ElementType element) => All.FirstOrDefault(type => ReferenceEquals(type.Element, element));
}
