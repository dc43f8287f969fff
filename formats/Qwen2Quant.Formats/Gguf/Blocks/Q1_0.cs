using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q1_0</c>: half d, 16 bytes of sign bits, lowest first; value +d where the bit is set, -d elsewhere.</summary>
internal sealed class Q1_0 : ScalarBlockType
{
    public override string Name => "Q1_0";
    public override int ValuesPerBlock => 128;
    public override int BytesPerBlock => 18;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        int d = BitConverter.SingleToInt32Bits(HalfAt(in block[0], 0));
        for (int j = 0; j < 128; j++)
        {
            int negative = ~(block[2 + (j >> 3)] >> (j & 7)) & 1;
            values[j] = BitConverter.Int32BitsToSingle(d ^ (negative << 31));
        }
    }
}
