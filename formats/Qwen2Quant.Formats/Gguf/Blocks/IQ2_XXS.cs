using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq2_xxs</c>: half d, 8 pairs of 32 bits: four grid indices, then four 7-bit signs under a 4-bit scale; value <c>(d * (0.5 + scale) * 0.25) * grid</c>, 32 values a scale.</summary>
internal readonly struct IQ2_XXS : ICodebookLayout
{
    public static string Name => "IQ2_XXS";
    public static int BlockBytes => 66;
    public static Codebook Codebook => Codebooks.Iq2Xxs;
    public static int RowLength => 8;
    public static int SubBlocks => 8;
    public static bool HasEvenSigns => true;
    public static float TypicalLevel => 21;
    public static ReferenceScan Reference => new() { Shells = 2, Tries = 6, Spacing = 0.1f, Epsilon = Search.Epsilon, Resnap = Resnap.Always, StartsFromRounding = true };

    public static float Step(float d, int scale) => d * (0.5f + scale) * 0.25f;

    public static int IndexAt(ref readonly byte block, int row) => ByteAt(in block, 2 + (8 * (row >> 2)) + (row & 3));

    public static int SignsAt(ref readonly byte block, int eight) => Codebook.EvenSigns((int)(UIntAt(in block, 6 + (8 * (eight >> 2))) >> (7 * (eight & 3))));

    public static int ScaleAt(ref readonly byte block, int subBlock) => ByteAt(in block, 9 + (8 * subBlock)) >> 4;

    public static void Store(in CodebookCodes codes, Span<byte> block)
    {
        for (int b = 0; b < 8; b++)
        {
            for (int l = 0; l < 4; l++) block[2 + (8 * b) + l] = (byte)codes.Indices[(4 * b) + l];
            PutUInt(codes.SevenBitSigns(b) | ((uint)codes.Scales[b] << 28), block, 6 + (8 * b));
        }
    }
}
