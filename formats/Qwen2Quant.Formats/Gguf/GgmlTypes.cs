using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

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
        new(2, Q4_0.Instance),
        new(3, Q4_1.Instance),
        new(6, Q5_0.Instance),
        new(7, Q5_1.Instance),
        new(8, Q8_0.Instance),
        new(9, Q8_1.Instance),
        new(10, Q2_K.Instance),
        new(11, Q3_K.Instance),
        new(12, Q4_K.Instance),
        new(13, Q5_K.Instance),
        new(14, Q6_K.Instance),
        new(15, Q8_K.Instance),
        new(16, IQ2_XXS.Instance),
        new(17, IQ2_XS.Instance),
        new(18, IQ3_XXS.Instance),
        new(19, IQ1_S.Instance),
        new(20, IQ4_NL.Instance),
        new(21, IQ3_S.Instance),
        new(22, IQ2_S.Instance),
        new(23, IQ4_XS.Instance),
        new(24, PlainTypes.I8),
        new(25, PlainTypes.I16),
        new(26, PlainTypes.I32),
        new(27, PlainTypes.I64),
        new(28, PlainTypes.F64),
        new(29, IQ1_M.Instance),
        new(30, PlainTypes.BF16),
        new(34, TQ1_0.Instance),
        new(35, TQ2_0.Instance),
        new(39, MXFP4.Instance),
        new(40, NVFP4.Instance),
        new(41, Q1_0.Instance),
        new(42, Q2_0.Instance),
    ];

    private static readonly GgmlType?[] ById = IndexById();
    private static readonly Dictionary<string, GgmlType> ByName = All.ToDictionary(type => type.Name, StringComparer.OrdinalIgnoreCase);
    private static readonly Dictionary<ElementType, GgmlType> ByElement = All.ToDictionary(type => type.Element);

    /// <summary>The type of that id, or null when ggml has none or removed it.</summary>
    public static GgmlType? Find(int id) => (uint)id < (uint)ById.Length ? ById[id] : null;

    /// <summary>The type of that name in any case, or null.</summary>
    public static GgmlType? Find(string name) => ByName.GetValueOrDefault(name);

    /// <summary>The row of an element type, or null when ggml does not have it.</summary>
    public static GgmlType? Of(ElementType element) => ByElement.GetValueOrDefault(element);

    private static GgmlType?[] IndexById()
    {
        GgmlType?[] byId = new GgmlType?[All[^1].Id + 1];
        foreach (GgmlType type in All) byId[type.Id] = type;
        return byId;
    }
}
