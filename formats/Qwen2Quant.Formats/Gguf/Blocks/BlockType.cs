using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A ggml type whose values share parameters in blocks. Decoding and reference encoding give ggml's bits at every vector width.</summary>
public abstract class BlockType : ElementType
{
    /// <summary>The grid and layout of one block, or null where no solver can choose this type's codes.</summary>
    public virtual IBlockCodec? Codec => null;

    /// <summary>Width at which this process decodes, by its name.</summary>
    public string DecoderName => DecoderNameAt(Simd.Level);

    /// <summary>Width at which this process encodes, by its name; null for a type that is not written.</summary>
    public string? EncoderName => EncoderNameAt(Simd.Level);

    internal abstract string DecoderNameAt(SimdLevel level);

    internal virtual string? EncoderNameAt(SimdLevel level) => null;

    /// <exception cref="ArgumentException">The lengths are not those of the same number of whole blocks.</exception>
    public sealed override void Decode(ReadOnlySpan<byte> blocks, Span<float> values) => Decode(Simd.Level, blocks, values);

    /// <summary>Encodes one row. <see cref="Effort.Reference"/> gives the bytes of ggml's <c>quantize_chunk</c>, without its importance matrix or with it.</summary>
    /// <exception cref="ArgumentException">The lengths are not those of the same number of whole blocks.</exception>
    /// <exception cref="NotSupportedException"><see cref="ElementType.CanEncode"/> is false.</exception>
    public sealed override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) =>
        EncodeRow(Simd.Level, row, importance, effort, blocks);

    internal void Decode(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        if (values.Length > 0) DecodeBlocks(level, blocks, values);
    }

    internal void EncodeRow(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length, importance);
        if (row.Length > 0) EncodeBlocks(level, row, importance, effort, blocks);
    }

    private protected abstract void DecodeBlocks(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values);

    private protected virtual void EncodeBlocks(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) =>
        throw new NotSupportedException($"{Name} cannot be written");
}
