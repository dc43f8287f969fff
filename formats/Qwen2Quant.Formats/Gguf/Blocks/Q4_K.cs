using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q4_K</c>: half d, half dmin, 12 bytes of 6-bit scales and minima, 128 of nibbles; value <c>(d * scale) * q - dmin * min</c>, 32 values a scale.</summary>
internal readonly struct Q4_K : IBlockFormat
{
    public static string Name => "Q4_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 144;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 0);
        float dmin = HalfAt(in block, 2);
        for (int k = 0; k < 8; k++)
        {
            (int scale, int min) = SixBitScales.At(ref ByteAt(in block, 4), k);
            T step = T.Broadcast(d * scale);
            T minimum = T.Broadcast(dmin * min);
            ref byte nibbles = ref ByteAt(in block, 16 + (32 * (k >> 1)));
            for (int l = 0; l < 32; l += T.Width)
            {
                T code = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref nibbles, l)), 4 * (k & 1)) & T.BroadcastInt(15);
                T.Store((step * T.ToFloat(code)) - minimum, ref Unsafe.Add(ref values, (32 * k) + l));
            }
        }
    }
}
