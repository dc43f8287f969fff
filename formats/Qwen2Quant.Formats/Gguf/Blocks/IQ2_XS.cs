using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq2_xs</c>: half d, 32 words of a 9-bit grid index under a 7-bit sign, 8 bytes of 4-bit scales; value <c>(d * (0.5 + scale) * 0.25) * grid</c>, 16 values a scale.</summary>
internal readonly struct IQ2_XS : ICodebookLayout
{
    public static string Name => "IQ2_XS";
    public static int BlockBytes => 74;
    public static Codebook Codebook => Codebooks.Iq2Xs;
    public static int RowLength => 8;
    public static int SubBlocks => 16;
    public static bool HasEvenSigns => true;
    public static float TypicalLevel => 21;
    public static ReferenceScan Reference => new() { Shells = 2, Tries = 9, Spacing = 0.1f, Epsilon = Search.Epsilon };

    public static float Step(float d, int scale) => d * (0.5f + scale) * 0.25f;

    public static int IndexAt(ref readonly byte block, int row) => UShortAt(in block, 2 + (2 * row)) & 511;

    public static int SignsAt(ref readonly byte block, int eight) => Codebook.EvenSigns(UShortAt(in block, 2 + (2 * eight)) >> 9);

    public static int ScaleAt(ref readonly byte block, int subBlock) => (ByteAt(in block, 66 + (subBlock >> 1)) >> (4 * (subBlock & 1))) & 15;

    public static void Store(in CodebookCodes codes, Span<byte> block)
    {
        for (int g = 0; g < 32; g++) PutUShort((ushort)(codes.Indices[g] | ((codes.Signs[g] & 127) << 9)), block, 2 + (2 * g));
        for (int b = 0; b < 8; b++) block[66 + b] = codes.ScalePair(b);
    }
}
