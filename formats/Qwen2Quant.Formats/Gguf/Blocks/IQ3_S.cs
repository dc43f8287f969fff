using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq3_s</c>: half d, 64 low index bytes, 8 bytes of ninth bits, 32 sign bytes, 4 bytes of 4-bit scales; value <c>(d * (1 + 2 * scale)) * grid</c>, 32 values a scale.</summary>
internal sealed class IQ3_S : ScalarBlockType
{
    public override string Name => "IQ3_S";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 110;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int g = 0; g < 64; g++)
        {
            int index = block[2 + g] | (((block[66 + (g >> 3)] >> (g & 7)) & 1) << 8);
            int scale = (block[106 + (g >> 4)] >> (4 * ((g >> 3) & 1))) & 15;
            int signs = block[74 + (g >> 1)] >> (4 * (g & 1));
            Codebooks.Iq3S.Decode(index, signs, d * (1 + (2 * scale)), values.Slice(4 * g, 4));
        }
    }
}
