using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq1_s</c>: half d, 32 low index bytes, 8 words of four 3-bit index heads, a 3-bit scale and the delta's sign; value <c>(d * (2 * scale + 1)) * (grid + delta)</c>, 32 values a scale.</summary>
internal sealed class IQ1_S : ScalarBlockType
{
    public override string Name => "IQ1_S";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 50;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int b = 0; b < 8; b++)
        {
            int word = UShortAt(in block[0], 34 + (2 * b));
            float step = d * ((2 * ((word >> 12) & 7)) + 1);
            float delta = (word & 0x8000) != 0 ? -Codebooks.Iq1Delta : Codebooks.Iq1Delta;
            for (int l = 0; l < 4; l++)
            {
                int index = block[2 + (4 * b) + l] | (((word >> (3 * l)) & 7) << 8);
                Codebooks.Iq1.DecodeShifted(index, delta, step, values.Slice((32 * b) + (8 * l), 8));
            }
        }
    }
}
