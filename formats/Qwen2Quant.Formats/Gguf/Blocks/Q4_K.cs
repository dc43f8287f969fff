using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q4_K</c>: half d, half dmin, 12 bytes of 6-bit scales and minima, 128 of nibbles; value <c>(d * scale) * q - dmin * min</c>, 32 values a scale.</summary>
internal readonly struct Q4_K : IAffineFormat, IIntegerFormat
{
    public static string Name => "Q4_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 144;
    public static int SubLength => 32;
    public static int CodeLimit => 15;
    public static int ScaleLimit => 63;
    public static int ScaleOffset => 4;
    public static int HalfOffset => 0;
    public static AffineTries Tries => new(-1, 0.1f, 20);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 0);
        float dmin = HalfAt(in block, 2);
        for (int k = 0; k < 8; k++)
        {
            (int scale, int min) = SixBitScales.At(ref ByteAt(in block, 4), k);
            T step = T.Broadcast(d * scale);
            T minimum = T.Broadcast(dmin * min);
            ref byte nibbles = ref ByteAt(in block, 16 + (32 * (k >> 1)));
            for (int l = 0; l < 32; l += T.Width)
            {
                T code = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref nibbles, l)), 4 * (k & 1)) & T.BroadcastInt(15);
                T.Store((step * T.ToFloat(code)) - minimum, ref Unsafe.Add(ref values, (32 * k) + l));
            }
        }
    }

    public static bool HasOrigins => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride) => SixBitScales.Unpack(in block, ref scales, ref origins, stride);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins) => SixBitScales.Eight(blocks, out origins);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run) => Shorts.Widen(Shorts.Bits(Shorts.Load(ref ByteAt(in block, 16 + (32 * (run >> 1)))), 4 * (run & 1), 15).AsSByte());

    public static void PackCodes<T>(ref readonly byte codes, ref byte block) where T : unmanaged, ILanes<T> => PackNibbles<T>(in codes, ref Unsafe.Add(ref block, 16));

    /// <summary>128 bytes of the low four bits of 256 codes: the nibbles of byte 32c + l are those of codes 64c + l and 64c + 32 + l. Q5_K has the same.</summary>
    public static void PackNibbles<T>(ref readonly byte codes, ref byte nibbles) where T : unmanaged, ILanes<T>
    {
        T low4 = T.BroadcastInt(15);
        for (int pair = 0; pair < 4; pair++)
        {
            for (int l = 0; l < 32; l += T.Width)
            {
                ref byte column = ref ByteAt(in codes, (64 * pair) + l);
                T low = T.LoadBytes(ref column) & low4;
                T high = T.LoadBytes(ref Unsafe.Add(ref column, 32)) & low4;
                T.StoreBytes(low | T.ShiftLeft(high, 4), ref Unsafe.Add(ref nibbles, (32 * pair) + l));
            }
        }
    }

    public static void UnpackCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < 256; i++) codes[i] = (byte)((block[16 + (32 * (i >> 6)) + (i & 31)] >> (4 * ((i >> 5) & 1))) & 15);
    }
}
