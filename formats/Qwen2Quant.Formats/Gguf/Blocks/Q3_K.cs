using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q3_K</c>: 32 bytes of high bits, 64 of low bit pairs, 12 of 6-bit scales, half d; value <c>(d * (scale - 32)) * (q - 4)</c>, 16 values a scale.</summary>
internal readonly struct Q3_K : IBlockFormat
{
    public static string Name => "Q3_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 110;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 108);
        for (int k = 0; k < 16; k++)
        {
            T step = T.Broadcast(d * Scale(in block, k));
            (int half, int plane) = (k >> 3, (k >> 1) & 3);
            int first = 16 * (k & 1);
            ref byte high = ref ByteAt(in block, first);
            ref byte low = ref ByteAt(in block, 32 + (32 * half) + first);
            for (int l = 0; l < 16; l += T.Width)
            {
                T low2 = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref low, l)), 2 * plane) & T.BroadcastInt(3);
                T high1 = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref high, l)), (4 * half) + plane) & T.BroadcastInt(1);
                T code = T.AddInt(low2 | T.ShiftLeft(high1, 2), T.BroadcastInt(-4));
                T.Store(step * T.ToFloat(code), ref Unsafe.Add(ref values, (16 * k) + l));
            }
        }
    }

    /// <summary>Low nibbles of scales 0 to 7 and 8 to 15 share bytes 96 to 103; bit pairs 4 and 5 lie in bytes 104 to 107, four scales a byte.</summary>
    private static int Scale(ref readonly byte block, int k)
    {
        int low = (ByteAt(in block, 96 + (k & 7)) >> (4 * (k >> 3))) & 15;
        int high = (ByteAt(in block, 104 + (k & 3)) >> (2 * (k >> 2))) & 3;
        return (low | (high << 4)) - 32;
    }
}
