using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq4_nl</c>: half d, 16 bytes of nibbles; value <c>d * table[q]</c>.</summary>
internal sealed class IQ4_NL : LaneBlockType<IQ4_NL>, ILaneDecoder
{
    public static IQ4_NL Instance { get; } = new();

    public static int BlockValues => 32;
    public static int BlockBytes => 18;

    public override string Name => "IQ4_NL";

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        NibbleTable.Decode<T>(ref ByteAt(in block, 2), in NibbleTable.Iq4[0], HalfAt(in block, 0), ref values);
    }
}
