namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_nvfp4</c>: four UE4M3 scales, 32 bytes of nibbles; value <c>fp4 * scale</c>, 16 values a scale, with doubled table and halved scale.</summary>
internal sealed class NVFP4 : ScalarBlockType
{
    public override string Name => "NVFP4";
    public override int ValuesPerBlock => 64;
    public override int BytesPerBlock => 36;

    private protected override void DecodeBlock(ReadOnlySpan<byte> block, Span<float> values)
    {
        for (int k = 0; k < 4; k++)
        {
            float scale = HalfScale(block[k]);
            for (int j = 0; j < 8; j++)
            {
                byte nibbles = block[4 + (8 * k) + j];
                values[(16 * k) + j] = NibbleTable.Fp4[nibbles & 15] * scale;
                values[(16 * k) + 8 + j] = NibbleTable.Fp4[nibbles >> 4] * scale;
            }
        }
    }

    /// <summary>Half of an E4M3 value whose sign bit is ignored; 0x7f, NaN in the format, is zero as in ggml.</summary>
    private static float HalfScale(byte bits)
    {
        if (bits == 0x7f) return 0;
        int exponent = (bits >> 3) & 15;
        int mantissa = bits & 7;
        return exponent == 0 ? mantissa / 1024f : BitConverter.Int32BitsToSingle(((exponent + 119) << 23) | (mantissa << 20));
    }
}
