using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q5_K</c>: half d, half dmin, 12 bytes of 6-bit scales and minima, 32 of fifth bits, 128 of nibbles; value <c>(d * scale) * q - dmin * min</c>, 32 values a scale.</summary>
internal readonly struct Q5_K : IAffineFormat, IIntegerFormat
{
    public static string Name => "Q5_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 176;
    public static int SubLength => 32;
    public static int CodeLimit => 31;
    public static int ScaleLimit => 63;
    public static int ScaleOffset => 4;
    public static int HalfOffset => 0;
    public static AffineTries Tries => new(-0.5f, 0.1f, 15);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 0);
        float dmin = HalfAt(in block, 2);
        ref byte fifthBits = ref ByteAt(in block, 16);
        for (int k = 0; k < 8; k++)
        {
            (int scale, int min) = SixBitScales.At(ref ByteAt(in block, 4), k);
            T step = T.Broadcast(d * scale);
            T minimum = T.Broadcast(dmin * min);
            ref byte nibbles = ref ByteAt(in block, 48 + (32 * (k >> 1)));
            for (int l = 0; l < 32; l += T.Width)
            {
                T low = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref nibbles, l)), 4 * (k & 1)) & T.BroadcastInt(15);
                T high = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref fifthBits, l)), k) & T.BroadcastInt(1);
                T.Store((step * T.ToFloat(low | T.ShiftLeft(high, 4))) - minimum, ref Unsafe.Add(ref values, (32 * k) + l));
            }
        }
    }

    public static bool HasOrigins => true;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride) => SixBitScales.Unpack(in block, ref scales, ref origins, stride);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins) => SixBitScales.Eight(blocks, out origins);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run)
    {
        Vector256<byte> low = Shorts.Bits(Shorts.Load(ref ByteAt(in block, 48 + (32 * (run >> 1)))), 4 * (run & 1), 15);
        Vector256<byte> high = Shorts.Bits(Shorts.Load(ref ByteAt(in block, 16)), run, 1);
        return Shorts.Widen((low | Vector256.ShiftLeft(high.AsUInt16(), 4).AsByte()).AsSByte());
    }

    /// <summary>Bit k of fifth-bit byte l belongs to code 32k + l.</summary>
    public static void PackCodes<T>(ref readonly byte codes, ref byte block) where T : unmanaged, ILanes<T>
    {
        Q4_K.PackNibbles<T>(in codes, ref Unsafe.Add(ref block, 48));
        for (int l = 0; l < 32; l += T.Width)
        {
            T fifthBits = T.BroadcastInt(0);
            for (int k = 0; k < 8; k++) fifthBits |= T.ShiftLeft(T.ShiftRight(T.LoadBytes(ref ByteAt(in codes, (32 * k) + l)), 4), k);
            T.StoreBytes(fifthBits, ref Unsafe.Add(ref block, 16 + l));
        }
    }

    public static void UnpackCodes(ReadOnlySpan<byte> block, Span<byte> codes)
    {
        for (int i = 0; i < 256; i++)
        {
            (int k, int l) = (i >> 5, i & 31);
            int low = (block[48 + (32 * (k >> 1)) + l] >> (4 * (k & 1))) & 15;
            codes[i] = (byte)(low | (((block[16 + l] >> k) & 1) << 4));
        }
    }
}
