using System.Runtime.CompilerServices;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq1_m</c>: 32 low index bytes, 16 bytes of nibbles (3-bit index head, delta's sign), 4 words of four 3-bit scales under a nibble of the half d; 16 values a scale.</summary>
internal readonly struct IQ1_M : IIq1Layout
{
    private const int HeadOffset = 32;
    private const int WordOffset = 48;

    public static string Name => "IQ1_M";
    public static int BlockBytes => 56;
    public static int Groups => 16;
    public static int GroupGranules => 2;
    public static int DeltaGranules => 1;

    public static void Read(ref readonly byte block, ref Iq1Fields fields)
    {
        int dBits = 0;
        for (int t = 0; t < Groups; t++)
        {
            int word = UShortAt(in block, WordOffset + (2 * (t >> 2)));
            fields.Multiples[t] = (2 * ((word >> (3 * (t & 3))) & 7)) + 1;
            if ((t & 3) == 0) dBits |= word >> 12 << t;
            int heads = ByteAt(in block, HeadOffset + t);
            for (int g = 2 * t; g <= (2 * t) + 1; g++, heads >>= 4)
            {
                fields.Rows[g] = (ushort)(ByteAt(in block, g) | ((heads & 7) << 8));
                fields.HasMinus[g] = (heads & 8) != 0;
            }
        }

        fields.D = (float)BitConverter.UInt16BitsToHalf((ushort)dBits);
    }

    public static void Write(Iq1Fields fields, ref byte block)
    {
        int dBits = BitConverter.HalfToUInt16Bits((Half)fields.D);
        for (int w = 0; w < 4; w++)
        {
            int word = ((dBits >> (4 * w)) & 15) << 12;
            for (int t = 4 * w; t < 4 * (w + 1); t++)
            {
                word |= (fields.Multiples[t] >> 1) << (3 * (t & 3));
                int heads = 0;
                for (int g = (2 * t) + 1; g >= 2 * t; g--)
                {
                    ByteAt(in block, g) = (byte)fields.Rows[g];
                    heads = (heads << 4) | (fields.Rows[g] >> 8) | (fields.HasMinus[g] ? 8 : 0);
                }

                ByteAt(in block, HeadOffset + t) = (byte)heads;
            }

            Unsafe.WriteUnaligned(ref ByteAt(in block, WordOffset + (2 * w)), (ushort)word);
        }
    }
}
