using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q8_1</c>, for activations: half d, half sum, 32 signed bytes; value <c>q * d</c>.</summary>
internal readonly struct Q8_1 : IBlockFormat
{
    public static string Name => "Q8_1";
    public static int BlockValues => 32;
    public static int BlockBytes => 36;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(HalfAt(in block, 0));
        for (int j = 0; j < 32; j += T.Width) T.Store(T.ToFloat(T.LoadSBytes(ref ByteAt(in block, 4 + j))) * step, ref Unsafe.Add(ref values, j));
    }
}
