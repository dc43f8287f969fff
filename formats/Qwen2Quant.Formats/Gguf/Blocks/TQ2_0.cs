using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_tq2_0</c>: 64 bytes of 2-bit codes, half d; value <c>(q - 1) * d</c>.</summary>
internal readonly struct TQ2_0 : IBlockFormat
{
    public static string Name => "TQ2_0";
    public static int BlockValues => 256;
    public static int BlockBytes => 66;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(HalfAt(in block, 64));
        for (int k = 0; k < 8; k++)
        {
            (int half, int plane) = (k >> 2, k & 3);
            for (int l = 0; l < 32; l += T.Width)
            {
                T code = T.ShiftRight(T.LoadBytes(ref ByteAt(in block, (32 * half) + l)), 2 * plane) & T.BroadcastInt(3);
                T.Store(T.ToFloat(T.AddInt(code, T.BroadcastInt(-1))) * step, ref Unsafe.Add(ref values, (32 * k) + l));
            }
        }
    }
}
