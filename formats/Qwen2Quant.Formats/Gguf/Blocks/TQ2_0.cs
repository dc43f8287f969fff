using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_tq2_0</c>: 64 bytes of 2-bit codes, half d; value <c>(q - 1) * d</c>. Code 3, which means 2d, is read and not written.</summary>
internal readonly struct TQ2_0 : ICodecFormat
{
    private const int HalfOffset = 64;

    public static string Name => "TQ2_0";
    public static int BlockValues => 256;
    public static int BlockBytes => 66;
    public static int BatchBlocks => 1;
    public static float LargestMagnitude => StoredHalf.Largest;
    public static GridShape Shape => new(256, 256, 1, 3, 1);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(HalfAt(in block, HalfOffset));
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

    /// <summary>ggml's codes are nearest under d before it is rounded.</summary>
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        float scale = Ternary.Scale<T>(values, importance, effort);
        T inverse = T.Broadcast(StoredHalf.Inverse(scale));
        StoreCodes(in values[0], inverse, ref blocks);
        StoreCodes(in values[128], inverse, ref Unsafe.Add(ref blocks, 32));
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref blocks, HalfOffset), (Half)scale);
    }

    /// <summary>32 bytes of 128 values, whose four bit planes hold 32 values each.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void StoreCodes<T>(ref readonly float values, T inverse, ref byte bytes) where T : unmanaged, ILanes<T>
    {
        for (int l = 0; l < 32; l += T.Width)
        {
            T code0 = Ternary.Codes(Block32.At<T>(in values, l), inverse);
            T code1 = Ternary.Codes(Block32.At<T>(in values, l + 32), inverse);
            T code2 = Ternary.Codes(Block32.At<T>(in values, l + 64), inverse);
            T code3 = Ternary.Codes(Block32.At<T>(in values, l + 96), inverse);
            T.StoreBytes(code0 | T.ShiftLeft(code1, 2) | T.ShiftLeft(code2, 4) | T.ShiftLeft(code3, 6), ref Unsafe.Add(ref bytes, l));
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters) =>
        parameters[0] = (float)(Half)Ternary.Scale<Lanes1>(block, importance, effort);

    public static float StoreParameter(int parameter, float value) => StoredHalf.Round(value);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0], 3, 1);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        for (int l = 0; l < 64; l++)
        {
            ReadOnlySpan<byte> column = codes[(l + (3 * (l & 32)))..];
            block[l] = (byte)(column[0] | (column[32] << 2) | (column[64] << 4) | (column[96] << 6));
        }

        MemoryMarshal.Write(block[HalfOffset..], (Half)parameters[0]);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], HalfOffset);
        for (int i = 0; i < 256; i++) codes[i] = (byte)((block[(i & 31) + (32 * (i >> 7))] >> (2 * ((i >> 5) & 3))) & 3);
    }
}
