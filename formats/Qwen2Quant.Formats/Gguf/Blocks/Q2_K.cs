using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q2_K</c>: 16 bytes of scales (low nibble) and minima (high), 64 of 2-bit codes, half d, half dmin; value <c>(d * scale) * q - dmin * min</c>, 16 values a scale.</summary>
internal readonly struct Q2_K : IBlockFormat
{
    public static string Name => "Q2_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 84;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 80);
        float dmin = HalfAt(in block, 82);
        for (int k = 0; k < 16; k++)
        {
            byte scale = ByteAt(in block, k);
            T step = T.Broadcast(d * (scale & 15));
            T minimum = T.Broadcast(dmin * (scale >> 4));
            (int half, int plane) = (k >> 3, (k >> 1) & 3);
            ref byte codes = ref ByteAt(in block, 16 + (32 * half) + (16 * (k & 1)));
            for (int l = 0; l < 16; l += T.Width)
            {
                T code = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref codes, l)), 2 * plane) & T.BroadcastInt(3);
                T.Store((step * T.ToFloat(code)) - minimum, ref Unsafe.Add(ref values, (16 * k) + l));
            }
        }
    }
}
