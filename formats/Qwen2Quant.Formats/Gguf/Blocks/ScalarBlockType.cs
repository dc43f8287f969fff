using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A block type whose decoder has one form for all vector widths: it looks values up in codebooks, or is not found in files.</summary>
internal abstract class ScalarBlockType : BlockType
{
    internal sealed override string DecoderNameAt(SimdLevel level) => Lanes1.Name;

    /// <summary>Decodes one block; the spans have its lengths.</summary>
    private protected abstract void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values);

    private protected sealed override void DecodeBlocks(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (int n = 0; n < values.Length / ValuesPerBlock; n++)
        {
            DecodeBlock(blocks.Slice(n * BytesPerBlock, BytesPerBlock), values.Slice(n * ValuesPerBlock, ValuesPerBlock));
        }
    }
}
