using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q2_K</c>: 16 bytes of scales (low nibble) and minima (high), 64 of 2-bit codes, half d, half dmin; value <c>(d * scale) * q - dmin * min</c>, 16 values a scale.</summary>
internal readonly struct Q2_K : IAffineFormat
{
    public static string Name => "Q2_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 84;
    public static int SubLength => 16;
    public static int CodeLimit => 3;
    public static int ScaleLimit => 15;
    public static int ScaleOffset => 0;
    public static int HalfOffset => 80;
    public static AffineTries Tries => new(-0.5f, 0.1f, 15, IsAbsolute: true);

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

    /// <summary>Bit pair c of byte 32h + l is code 128h + 32c + l.</summary>
    public static void PackCodes<T>(ref readonly byte codes, ref byte block) where T : unmanaged, ILanes<T>
    {
        for (int half = 0; half < 2; half++)
        {
            for (int l = 0; l < 32; l += T.Width)
            {
                ref byte column = ref ByteAt(in codes, (128 * half) + l);
                T packed = T.LoadBytes(ref column);
                for (int plane = 1; plane < 4; plane++) packed |= T.ShiftLeft(T.LoadBytes(ref Unsafe.Add(ref column, 32 * plane)), 2 * plane);
                T.StoreBytes(packed, ref Unsafe.Add(ref block, 16 + (32 * half) + l));
            }
        }
    }

    public static void UnpackCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < 256; i++) codes[i] = (byte)((block[16 + (32 * (i >> 7)) + (i & 31)] >> (2 * ((i >> 5) & 3))) & 3);
    }
}
