using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>One file as its header describes it.</summary>
/// <param name="ByteLength">Length of the file.</param>
/// <param name="Version">Container version: 1, 2 or 3.</param>
/// <param name="Alignment">What tensors are padded to, in bytes.</param>
/// <param name="DataOffset">First byte of the data section.</param>
public sealed record GgufPart(
    string Path, long ByteLength, int Version, int Alignment, long DataOffset, GgufMetadata Metadata, IReadOnlyList<GgufTensorInfo> Tensors);

/// <summary>A tensor as the header lists it; its type may be one that ggml does not have (any more).</summary>
/// <param name="Shape">Dimensions outermost first, the reverse of ggml's <c>ne</c>; as many as the file gives, trailing ones of <c>ne</c> included.</param>
/// <param name="TypeId">The number in the file.</param>
/// <param name="Type">The type of that number, or null when there is none.</param>
/// <param name="ByteOffset">First byte, counted from the start of the file.</param>
public sealed record GgufTensorInfo(string Name, Shape Shape, int TypeId, GgmlType? Type, long ByteOffset);
