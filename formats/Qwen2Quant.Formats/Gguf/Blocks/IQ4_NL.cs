using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq4_nl</c>: half d, 16 bytes of nibbles; value <c>d * table[q]</c>.</summary>
internal readonly struct IQ4_NL : IBlockFormat
{
    public static string Name => "IQ4_NL";
    public static int BlockValues => 32;
    public static int BlockBytes => 18;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        NibbleTable.Decode<T>(ref ByteAt(in block, 2), in NibbleTable.Iq4[0], HalfAt(in block, 0), ref values);
    }
}
