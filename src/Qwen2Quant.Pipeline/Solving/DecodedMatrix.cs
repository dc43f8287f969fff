using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>One matrix of floats in memory.</summary>
internal sealed class DecodedMatrix(TensorEntry entry, float[] values) : ITensorSource
{
    public IReadOnlyList<TensorEntry> Tensors => [entry];

    public TensorEntry? Find(string name) => name == entry.Name ? entry : null;

    public void ReadRaw(TensorEntry tensor, long byteOffset, Span<byte> destination) =>
        MemoryMarshal.AsBytes(values.AsSpan()).Slice(checked((int)byteOffset), destination.Length).CopyTo(destination);

    public void Dispose()
    {
    }
}
