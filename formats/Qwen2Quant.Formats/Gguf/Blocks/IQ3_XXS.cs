using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq3_xxs</c>: half d, 64 grid indices, 8 times 32 bits of four 7-bit signs under a 4-bit scale; value <c>(d * (0.5 + scale) * 0.5) * grid</c>, 32 values a scale.</summary>
internal readonly struct IQ3_XXS : ICodebookLayout
{
    public static string Name => "IQ3_XXS";
    public static int BlockBytes => 98;
    public static Codebook Codebook => Codebooks.Iq3Xxs;
    public static int RowLength => 4;
    public static int SubBlocks => 8;
    public static bool HasEvenSigns => true;
    public static float TypicalLevel => 23;
    public static ReferenceScan Reference => new() { Shells = 2, Tries = 15, Spacing = 0.2f, Epsilon = 1e-8f, VarianceFactor = 2, PlainVarianceFactor = 0, Fudge = 1.0125f };

    public static float Step(float d, int scale) => d * (0.5f + scale) * 0.5f;

    public static int IndexAt(ref readonly byte block, int row) => ByteAt(in block, 2 + row);

    public static int SignsAt(ref readonly byte block, int eight) => Codebook.EvenSigns((int)(UIntAt(in block, 66 + (eight & ~3)) >> (7 * (eight & 3))));

    public static int ScaleAt(ref readonly byte block, int subBlock) => ByteAt(in block, 69 + (4 * subBlock)) >> 4;

    public static void Store(in CodebookCodes codes, Span<byte> block)
    {
        for (int row = 0; row < 64; row++) block[2 + row] = (byte)codes.Indices[row];
        for (int b = 0; b < 8; b++) PutUInt(codes.SevenBitSigns(b) | ((uint)codes.Scales[b] << 28), block, 66 + (4 * b));
    }
}
