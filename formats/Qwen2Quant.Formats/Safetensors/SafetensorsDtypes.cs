using System.Text;
using System.Text.Json;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>A dtype of the format: its name in files and what the bytes mean.</summary>
public sealed class SafetensorsDtype(string name, ElementType element)
{
    private readonly byte[] _nameUtf8 = Encoding.UTF8.GetBytes(name);

    public string Name { get; } = name;
    public ElementType Element { get; } = element;

    /// <summary>Place in the format's own enumeration, by rising alignment; the reference writer orders tensors by it, falling.</summary>
    public int Order { get; internal init; }

    internal bool IsSpelledBy(ref Utf8JsonReader reader) => reader.ValueTextEquals(_nameUtf8);
}

/// <summary>The dtypes of safetensors 0.8 (<c>Dtype</c> in <c>tensor.rs</c>), in its order.</summary>
public static class SafetensorsDtypes
{
    public static IReadOnlyList<SafetensorsDtype> All { get; } = Number(
        ("BOOL", PlainTypes.Bool),
        ("F4", new SizedType("F4", 2, 1)),
        ("F6_E2M3", new SizedType("F6_E2M3", 4, 3)),
        ("F6_E3M2", new SizedType("F6_E3M2", 4, 3)),
        ("U8", PlainTypes.U8),
        ("I8", PlainTypes.I8),
        ("F8_E5M2", PlainTypes.F8E5M2),
        ("F8_E4M3", PlainTypes.F8E4M3),
        ("F8_E8M0", new SizedType("F8_E8M0", 1, 1)),
        ("F8_E4M3FNUZ", new SizedType("F8_E4M3FNUZ", 1, 1)),
        ("F8_E5M2FNUZ", new SizedType("F8_E5M2FNUZ", 1, 1)),
        ("I16", PlainTypes.I16),
        ("U16", PlainTypes.U16),
        ("F16", PlainTypes.F16),
        ("BF16", PlainTypes.BF16),
        ("I32", PlainTypes.I32),
        ("U32", PlainTypes.U32),
        ("F32", PlainTypes.F32),
        ("C64", new SizedType("C64", 1, 8)),
        ("F64", PlainTypes.F64),
        ("I64", PlainTypes.I64),
        ("U64", PlainTypes.U64));

    /// <summary>The dtype of that exact name, or null: the format's names are case-sensitive.</summary>
    public static SafetensorsDtype? Find(string name) => All.FirstOrDefault(dtype => dtype.Name == name);

    /// <summary>The dtype that holds this element type, or null when the format has none or the name in the file was unknown.</summary>
    public static SafetensorsDtype? Of(ElementType element) => All.FirstOrDefault(dtype => ReferenceEquals(dtype.Element, element));

    internal static SafetensorsDtype? Find(ref Utf8JsonReader reader)
    {
        foreach (SafetensorsDtype dtype in All)
        {
            if (dtype.IsSpelledBy(ref reader)) return dtype;
        }

        return null;
    }

    private static SafetensorsDtype[] Number(params (string Name, ElementType Element)[] rows) =>
        [.. rows.Select((row, order) => new SafetensorsDtype(row.Name, row.Element) { Order = order })];
}
