using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq2_xs</c>: half d, 32 words of a 9-bit grid index under a 7-bit sign, 8 bytes of 4-bit scales; value <c>(d * (0.5 + scale) * 0.25) * grid</c>, 16 values a scale.</summary>
internal sealed class IQ2_XS : ScalarBlockType
{
    public override string Name => "IQ2_XS";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 74;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int g = 0; g < 32; g++)
        {
            int word = UShortAt(in block[0], 2 + (2 * g));
            int scale = (block[66 + (g >> 2)] >> (4 * ((g >> 1) & 1))) & 15;
            Codebooks.Iq2Xs.Decode(word & 511, Codebook.EvenSigns(word >> 9), d * (0.5f + scale) * 0.25f, values.Slice(8 * g, 8));
        }
    }
}
