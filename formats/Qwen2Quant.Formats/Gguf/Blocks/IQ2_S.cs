using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq2_s</c>: half d, 32 low index bytes, 32 sign bytes, 8 bytes of high index bits, 8 of 4-bit scales; value <c>(d * (0.5 + scale) * 0.25) * grid</c>, 16 values a scale.</summary>
internal readonly struct IQ2_S : ICodebookLayout
{
    public static string Name => "IQ2_S";
    public static int BlockBytes => 82;
    public static Codebook Codebook => Codebooks.Iq2S;
    public static int RowLength => 8;
    public static int SubBlocks => 16;
    public static bool HasEvenSigns => false;
    public static float TypicalLevel => 21;
    public static ReferenceScan Reference => new() { Shells = 1, Tries = 9, Spacing = 0.1f, Epsilon = 1e-8f, VarianceFactor = 2, PlainVarianceFactor = 0.25f, Fudge = 0.9875f };

    public static float Step(float d, int scale) => d * (0.5f + scale) * 0.25f;

    public static int IndexAt(ref readonly byte block, int row) => ByteAt(in block, 2 + row) | (((ByteAt(in block, 66 + (row >> 2)) >> (2 * (row & 3))) & 3) << 8);

    public static int SignsAt(ref readonly byte block, int eight) => ByteAt(in block, 34 + eight);

    public static int ScaleAt(ref readonly byte block, int subBlock) => (ByteAt(in block, 74 + (subBlock >> 1)) >> (4 * (subBlock & 1))) & 15;

    public static void Store(in CodebookCodes codes, Span<byte> block)
    {
        block[66..].Clear();
        for (int g = 0; g < 32; g++)
        {
            block[2 + g] = (byte)codes.Indices[g];
            block[34 + g] = codes.Signs[g];
            block[66 + (g >> 2)] |= (byte)((codes.Indices[g] >> 8) << (2 * (g & 3)));
        }

        for (int b = 0; b < 8; b++) block[74 + b] = codes.ScalePair(b);
    }
}
