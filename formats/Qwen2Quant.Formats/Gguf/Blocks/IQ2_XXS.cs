using System.Buffers.Binary;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq2_xxs</c>: half d, 8 pairs of 32 bits: four grid indices, then four 7-bit signs under a 4-bit scale; value <c>(d * (0.5 + scale) * 0.25) * grid</c>, 32 values a scale.</summary>
internal sealed class IQ2_XXS : ScalarBlockType
{
    public override string Name => "IQ2_XXS";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 66;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int b = 0; b < 8; b++)
        {
            uint signs = BinaryPrimitives.ReadUInt32LittleEndian(block[(6 + (8 * b))..]);
            float step = d * (0.5f + (signs >> 28)) * 0.25f;
            for (int l = 0; l < 4; l++)
            {
                Codebooks.Iq2Xxs.Decode(block[2 + (8 * b) + l], Codebook.EvenSigns((int)(signs >> (7 * l))), step, values.Slice((32 * b) + (8 * l), 8));
            }
        }
    }
}
