using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq4_xs</c>: half d, 2 and 4 bytes of 6-bit scales, 128 of nibbles; value <c>(d * (scale - 32)) * table[q]</c>, 32 values a scale.</summary>
internal readonly struct IQ4_XS : IBlockFormat
{
    public static string Name => "IQ4_XS";
    public static int BlockValues => 256;
    public static int BlockBytes => 136;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 0);
        int scalesHigh = UShortAt(in block, 2);
        for (int k = 0; k < 8; k++)
        {
            int low = (ByteAt(in block, 4 + (k >> 1)) >> (4 * (k & 1))) & 15;
            int scale = low | (((scalesHigh >> (2 * k)) & 3) << 4);
            NibbleTable.Decode<T>(ref ByteAt(in block, 8 + (16 * k)), in NibbleTable.Iq4[0], d * (scale - 32), ref Unsafe.Add(ref values, 32 * k));
        }
    }
}
