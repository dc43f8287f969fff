using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q8_1</c>, for activations: half d, half sum, 32 signed bytes; value <c>q * d</c>.</summary>
internal sealed class Q8_1 : LaneBlockType<Q8_1>, ILaneDecoder
{
    public static Q8_1 Instance { get; } = new();

    public static int BlockValues => 32;
    public static int BlockBytes => 36;

    public override string Name => "Q8_1";

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(HalfAt(in block, 0));
        for (int j = 0; j < 32; j += T.Width) T.Store(T.ToFloat(T.LoadSBytes(ref ByteAt(in block, 4 + j))) * step, ref Unsafe.Add(ref values, j));
    }
}
