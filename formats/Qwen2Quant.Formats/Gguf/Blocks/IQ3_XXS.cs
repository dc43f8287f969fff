using System.Buffers.Binary;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq3_xxs</c>: half d, 64 grid indices, 8 times 32 bits of four 7-bit signs under a 4-bit scale; value <c>(d * (0.5 + scale) * 0.5) * grid</c>, 32 values a scale.</summary>
internal sealed class IQ3_XXS : ScalarBlockType
{
    public override string Name => "IQ3_XXS";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 98;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int b = 0; b < 8; b++)
        {
            uint signs = BinaryPrimitives.ReadUInt32LittleEndian(block[(66 + (4 * b))..]);
            float step = d * (0.5f + (signs >> 28)) * 0.5f;
            for (int l = 0; l < 4; l++)
            {
                int eight = Codebook.EvenSigns((int)(signs >> (7 * l)));
                int first = (8 * b) + (2 * l);
                Codebooks.Iq3Xxs.Decode(block[2 + first], eight, step, values.Slice(4 * first, 4));
                Codebooks.Iq3Xxs.Decode(block[3 + first], eight >> 4, step, values.Slice((4 * first) + 4, 4));
            }
        }
    }
}
