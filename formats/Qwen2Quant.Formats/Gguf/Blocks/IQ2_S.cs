using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq2_s</c>: half d, 32 low index bytes, 32 sign bytes, 8 bytes of high index bits, 8 of 4-bit scales; value <c>(d * (0.5 + scale) * 0.25) * grid</c>, 16 values a scale.</summary>
internal sealed class IQ2_S : ScalarBlockType
{
    public override string Name => "IQ2_S";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 82;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int g = 0; g < 32; g++)
        {
            int index = block[2 + g] | (((block[66 + (g >> 2)] >> (2 * (g & 3))) & 3) << 8);
            int scale = (block[74 + (g >> 2)] >> (4 * ((g >> 1) & 1))) & 15;
            Codebooks.Iq2S.Decode(index, block[34 + g], d * (0.5f + scale) * 0.25f, values.Slice(8 * g, 8));
        }
    }
}
