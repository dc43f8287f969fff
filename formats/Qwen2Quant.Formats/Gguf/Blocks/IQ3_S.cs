using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq3_s</c>: half d, 64 low index bytes, 8 bytes of ninth bits, 32 sign bytes, 4 bytes of 4-bit scales; value <c>(d * (1 + 2 * scale)) * grid</c>, 32 values a scale.</summary>
internal readonly struct IQ3_S : ICodebookLayout
{
    public static string Name => "IQ3_S";
    public static int BlockBytes => 110;
    public static Codebook Codebook => Codebooks.Iq3S;
    public static int RowLength => 4;
    public static int SubBlocks => 8;
    public static bool HasEvenSigns => false;
    public static float TypicalLevel => 6;
    public static ReferenceScan Reference => new()
    {
        Shells = 3, Tries = 9, Spacing = 0.2f, Epsilon = float.Epsilon, VarianceFactor = 2, PlainVarianceFactor = 0, Fudge = 1.033f, Resnap = Resnap.WhenAnyIsOff,
    };

    public static float Step(float d, int scale) => d * (1 + (2 * scale));

    public static int IndexAt(ref readonly byte block, int row) => ByteAt(in block, 2 + row) | (((ByteAt(in block, 66 + (row >> 3)) >> (row & 7)) & 1) << 8);

    public static int SignsAt(ref readonly byte block, int eight) => ByteAt(in block, 74 + eight);

    public static int ScaleAt(ref readonly byte block, int subBlock) => (ByteAt(in block, 106 + (subBlock >> 1)) >> (4 * (subBlock & 1))) & 15;

    public static void Store(in CodebookCodes codes, Span<byte> block)
    {
        block[66..74].Clear();
        for (int row = 0; row < 64; row++)
        {
            block[2 + row] = (byte)codes.Indices[row];
            block[66 + (row >> 3)] |= (byte)((codes.Indices[row] >> 8) << (row & 7));
        }

        codes.Signs[..32].CopyTo(block[74..]);
        for (int b = 0; b < 4; b++) block[106 + b] = codes.ScalePair(b);
    }
}
