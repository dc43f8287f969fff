using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q2_0</c>: half d, 16 bytes of 2-bit codes, lowest first; value <c>(q - 1) * d</c>.</summary>
internal sealed class Q2_0 : ScalarBlockType
{
    public override string Name => "Q2_0";
    public override int ValuesPerBlock => 64;
    public override int BytesPerBlock => 18;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 0);
        for (int j = 0; j < 64; j++) values[j] = (((block[2 + (j >> 2)] >> (2 * (j & 3))) & 3) - 1) * d;
    }
}
