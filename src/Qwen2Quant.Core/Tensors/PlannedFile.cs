namespace Qwen2Quant.Core.Tensors;

/// <summary>A tensor that is to be written.</summary>
public sealed record OutputTensor(string Name, ElementType Type, Shape Shape)
{
    public long ByteLength => Type.ByteCount(Shape.ValueCount);
}

/// <summary>
/// One file of an output, fully known before a byte of data is computed: its header, and where each tensor goes.
/// Bytes that belong to no tensor and not to the header are zero.
/// </summary>
/// <param name="Name">File name, without folder.</param>
/// <param name="Header">All bytes from 0 to the data section.</param>
/// <param name="ByteLength">Length of the whole file, final padding included.</param>
public sealed record PlannedFile(string Name, byte[] Header, long ByteLength, IReadOnlyList<PlannedTensor> Tensors);

/// <summary>Where one tensor lies in its file.</summary>
/// <param name="ByteOffset">First byte, counted from the start of the file.</param>
public sealed record PlannedTensor(OutputTensor Tensor, long ByteOffset);
