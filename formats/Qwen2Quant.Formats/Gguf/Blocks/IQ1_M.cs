using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq1_m</c>: 32 low index bytes, 16 bytes of nibbles (3-bit index head, delta's sign), 4 words of four 3-bit scales under a nibble of the half d; value <c>(d * (2 * scale + 1)) * (grid + delta)</c>, 16 values a scale.</summary>
internal sealed class IQ1_M : ScalarBlockType
{
    public override string Name => "IQ1_M";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 56;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        int dBits = 0;
        for (int w = 0; w < 4; w++) dBits |= UShortAt(in block[0], 48 + (2 * w)) >> 12 << (4 * w);
        float d = (float)BitConverter.UInt16BitsToHalf((ushort)dBits);
        for (int g = 0; g < 32; g++)
        {
            int t = g >> 1;
            int scale = (UShortAt(in block[0], 48 + (2 * (t >> 2))) >> (3 * (t & 3))) & 7;
            int head = block[32 + (g >> 1)] >> (4 * (g & 1));
            float delta = (head & 8) != 0 ? -Codebooks.Iq1Delta : Codebooks.Iq1Delta;
            Codebooks.Iq1.DecodeShifted(block[g] | ((head & 7) << 8), delta, d * ((2 * scale) + 1), values.Slice(8 * g, 8));
        }
    }
}
