using System.Runtime.CompilerServices;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq1_s</c>: half d, 32 low index bytes, 8 words of four 3-bit index heads, a 3-bit scale and the delta's sign; 32 values a scale.</summary>
internal readonly struct IQ1_S : IIq1Layout
{
    private const int WordOffset = 34;

    public static string Name => "IQ1_S";
    public static int BlockBytes => 50;
    public static int Groups => 8;
    public static int GroupGranules => 4;
    public static int DeltaGranules => 4;

    public static void Read(ref readonly byte block, ref Iq1Fields fields)
    {
        fields.D = HalfAt(in block, 0);
        for (int b = 0; b < Groups; b++)
        {
            int word = UShortAt(in block, WordOffset + (2 * b));
            fields.Multiples[b] = (2 * ((word >> 12) & 7)) + 1;
            for (int l = 0; l < 4; l++)
            {
                fields.Rows[(4 * b) + l] = (ushort)(ByteAt(in block, 2 + (4 * b) + l) | (((word >> (3 * l)) & 7) << 8));
                fields.HasMinus[(4 * b) + l] = (word & 0x8000) != 0;
            }
        }
    }

    public static void Write(Iq1Fields fields, ref byte block)
    {
        Unsafe.WriteUnaligned(ref block, (Half)fields.D);
        for (int b = 0; b < Groups; b++)
        {
            int word = ((fields.Multiples[b] >> 1) << 12) | (fields.HasMinus[4 * b] ? 0x8000 : 0);
            for (int l = 0; l < 4; l++)
            {
                int row = fields.Rows[(4 * b) + l];
                ByteAt(in block, 2 + (4 * b) + l) = (byte)row;
                word |= (row >> 8) << (3 * l);
            }

            Unsafe.WriteUnaligned(ref ByteAt(in block, WordOffset + (2 * b)), (ushort)word);
        }
    }
}
