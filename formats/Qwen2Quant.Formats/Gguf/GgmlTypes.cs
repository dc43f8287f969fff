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
        new(2, new LaneCodecType<NibbleBlock<Q4_0>>(new BlockIntegers<NibbleBlock<Q4_0>, NibbleRuns<Q4_0>>())),
        new(3, new LaneCodecType<NibbleBlock<Q4_1>>(new BlockIntegers<NibbleBlock<Q4_1>, NibbleRuns<Q4_1>>())),
        new(6, new LaneCodecType<NibbleBlock<Q5_0>>(new BlockIntegers<NibbleBlock<Q5_0>, NibbleRuns<Q5_0>>())),
        new(7, new LaneCodecType<NibbleBlock<Q5_1>>(new BlockIntegers<NibbleBlock<Q5_1>, NibbleRuns<Q5_1>>())),
        new(8, new LaneCodecType<Q8_0>(new BlockIntegers<Q8_0, WidenedRuns<Q8_0>>())),
        new(9, new LaneBlockType<Q8_1>()),
        new(10, new LaneCodecType<AffineBlock<Q2_K>>()),
        new(11, new LaneCodecType<Q3_K>(new BlockIntegers<Q3_K, WidenedRuns<Q3_K>>())),
        new(12, new LaneCodecType<AffineBlock<Q4_K>>(new BlockIntegers<Q4_K, SuperNibbleRuns>())),
        new(13, new LaneCodecType<AffineBlock<Q5_K>>(new BlockIntegers<Q5_K, WidenedRuns<Q5_K>>())),
        new(14, new LaneCodecType<Q6_K>(new BlockIntegers<Q6_K, WidenedRuns<Q6_K>>())),
        new(15, new LaneBlockType<Q8_K>()),
        new(16, new LaneCodebookType<CodebookBlock<IQ2_XXS>>()),
        new(17, new LaneCodebookType<CodebookBlock<IQ2_XS>>()),
        new(18, new LaneCodebookType<CodebookBlock<IQ3_XXS>>()),
        new(19, new LaneCodebookType<Iq1Block<IQ1_S>>()),
        new(20, new LaneCodecType<IQ4_NL>(new BlockIntegers<IQ4_NL, WidenedRuns<IQ4_NL>>())),
        new(21, new LaneCodebookType<CodebookBlock<IQ3_S>>()),
        new(22, new LaneCodebookType<CodebookBlock<IQ2_S>>()),
        new(23, new LaneCodecType<IQ4_XS>(new BlockIntegers<IQ4_XS, WidenedRuns<IQ4_XS>>())),
        new(24, PlainTypes.I8),
        new(25, PlainTypes.I16),
        new(26, PlainTypes.I32),
        new(27, PlainTypes.I64),
        new(28, PlainTypes.F64),
        new(29, new LaneCodebookType<Iq1Block<IQ1_M>>()),
        new(30, PlainTypes.BF16),
        new(34, new LaneCodecType<TQ1_0>()),
        new(35, new LaneCodecType<TQ2_0>()),
        new(39, new LaneCodecType<MXFP4>(new BlockIntegers<MXFP4, WidenedRuns<MXFP4>>())),
        new(40, new LaneCodecType<NVFP4>()),
        new(41, new Q1_0()),
        new(42, new Q2_0()),
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
