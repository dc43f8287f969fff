using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_tq1_0</c>: 52 bytes of base-3 digits, five a byte and four in each of the last four, half d; value <c>(digit - 1) * d</c>.</summary>
internal sealed class TQ1_0 : ScalarBlockType
{
    public override string Name => "TQ1_0";
    public override int ValuesPerBlock => 256;
    public override int BytesPerBlock => 54;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        float d = HalfAt(in block[0], 52);
        Digits(block[..32], 5, d, values);
        Digits(block.Slice(32, 16), 5, d, values[160..]);
        Digits(block.Slice(48, 4), 4, d, values[240..]);
    }

    /// <summary>Digit n of byte m is value <c>n * bytes.Length + m</c>. A byte is a fraction of 256 rounded up: times three, the digit is what passes 256.</summary>
    private static void Digits(ReadOnlySpan<byte> bytes, int digitCount, float d, Span<float> values)
    {
        for (int m = 0; m < bytes.Length; m++)
        {
            byte rest = bytes[m];
            for (int n = 0; n < digitCount; n++)
            {
                int tripled = rest * 3;
                values[(n * bytes.Length) + m] = ((tripled >> 8) - 1) * d;
                rest = (byte)tripled;
            }
        }
    }
}
