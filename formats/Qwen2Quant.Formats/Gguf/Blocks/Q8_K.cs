using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q8_K</c>, for activations: float d, 256 signed bytes, 16 sums of 16 codes; value <c>d * q</c>.</summary>
internal readonly struct Q8_K : IBlockFormat
{
    public static string Name => "Q8_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 292;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(BitConverter.UInt32BitsToSingle(UIntAt(in block, 0)));
        for (int j = 0; j < 256; j += T.Width) T.Store(step * T.ToFloat(T.LoadSBytes(ref ByteAt(in block, 4 + j))), ref Unsafe.Add(ref values, j));
    }
}
