using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// The rules of one GGUF file and of a split set, in the order in which a reader meets them. Planning an output enforces those
/// that an output could break. What the metadata must say about a model (GG-52 to GG-54) is judged where models are known.
/// </summary>
public static class GgufRules
{
    public static readonly Rule Magic = new("GG-31", "the file starts with GGUF");
    public static readonly Rule Version = new("GG-32", "the version is 1, 2 or 3, little-endian");
    public static readonly Rule Counts = new("GG-33", "counts of keys and tensors are below 2^63 and fit in the bytes of the file");
    public static readonly Rule KeyLength = new("GG-34", "a key has 1 to 65535 bytes, all within the file");
    public static readonly Rule KeySpelling = new("GG-35", "a key is UTF-8; written ones are lower snake case with dots");
    public static readonly Rule DuplicateKey = new("GG-36", "no key occurs twice");
    public static readonly Rule ValueType = new("GG-37", "value types are 0 to 12, and booleans 0 or 1");
    public static readonly Rule StringLength = new("GG-38", "a string lies within the file and should be UTF-8");
    public static readonly Rule ArrayLength = new("GG-39", "an array's elements fit in the bytes of the file");
    public static readonly Rule Nesting = new("GG-40", "arrays of arrays end within the limit; none is written");
    public static readonly Rule Alignment = new("GG-41", "general.alignment is a UINT32 power of two, at most 2 MiB");
    public static readonly Rule CustomAlignment = new("GG-42", "tensors lie at multiples of the alignment that the file states");
    public static readonly Rule TensorName = new("GG-43", "tensor names have 1 to 63 bytes of UTF-8 without NUL, each once");
    public static readonly Rule Rank = new("GG-44", "a tensor has 1 to 4 dimensions");
    public static readonly Rule Dimension = new("GG-45", "dimensions and their product are below 2^63");
    public static readonly Rule TensorType = new("GG-46", "the tensor type is one that ggml has");
    public static readonly Rule RowLength = new("GG-47", "a row is whole blocks");
    public static readonly Rule Offset = new("GG-48", "a tensor's offset is the sum of the padded sizes before it");
    public static readonly Rule DataLength = new("GG-49", "a tensor's bytes lie within the file");
    public static readonly Rule LastPadding = new("GG-50", "the last tensor is padded to the alignment");
    public static readonly Rule Split = new("GG-51", "the parts of a split file are complete, in order, and of one model");
    public static readonly Rule QuantizationVersion = new("GG-55", "general.quantization_version is there when tensors are quantized");

    public static IReadOnlyList<Rule> All { get; } =
    [
        Magic, Version, Counts, KeyLength, KeySpelling, DuplicateKey, ValueType, StringLength, ArrayLength, Nesting, Alignment,
        CustomAlignment, TensorName, Rank, Dimension, TensorType, RowLength, Offset, DataLength, LastPadding, Split, QuantizationVersion,
    ];
}
