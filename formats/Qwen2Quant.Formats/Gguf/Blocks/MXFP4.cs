using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_mxfp4</c>: one E8M0 exponent, 16 bytes of nibbles; value <c>fp4 * 2^(e - 127)</c>, with doubled table and halved scale.</summary>
internal readonly struct MXFP4 : IBlockFormat
{
    public static string Name => "MXFP4";
    public static int BlockValues => 32;
    public static int BlockBytes => 17;

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        NibbleTable.Decode<T>(ref ByteAt(in block, 1), in NibbleTable.Fp4[0], HalfScale(ByteAt(in block, 0)), ref values);
    }

    /// <summary>2^(e - 128); 2^-128 and 2^-127 are denormal. 255 is NaN in the format and, as in ggml, 2^127 here.</summary>
    private static float HalfScale(byte exponent) => BitConverter.UInt32BitsToSingle(exponent < 2 ? 0x200000u << exponent : (exponent - 1u) << 23);
}
