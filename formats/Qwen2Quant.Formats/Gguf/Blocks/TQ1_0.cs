using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_tq1_0</c>: 52 bytes of base-3 digits, five a byte and four in each of the last four, half d; value <c>(digit - 1) * d</c>.</summary>
internal readonly struct TQ1_0 : ICodecFormat
{
    private const int DigitBytes = 52;

    public static string Name => "TQ1_0";
    public static int BlockValues => 256;
    public static int BlockBytes => 54;
    public static int BatchBlocks => 1;
    public static float LargestMagnitude => StoredHalf.Largest;

    /// <summary>Bytes that no encoder writes unpack to the digits that ggml reads in them.</summary>
    public static GridShape Shape => new(256, 256, 1, 3, 1);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, DigitBytes);
        DecodeDigits<T>(in block, 32, 5, d, ref values);
        DecodeDigits<T>(ref ByteAt(in block, 32), 16, 5, d, ref Unsafe.Add(ref values, 160));
        DecodeDigits<Lanes1>(ref ByteAt(in block, 48), 4, 4, d, ref Unsafe.Add(ref values, 240));
    }

    /// <summary>ggml's codes are nearest under d before it is rounded.</summary>
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        float scale = Ternary.Scale<T>(values, importance, effort);
        float inverse = StoredHalf.Inverse(scale);
        EncodeDigits<T>(in values[0], inverse, 32, ref blocks);
        EncodeDigits<T>(in values[160], inverse, 16, ref Unsafe.Add(ref blocks, 32));
        EncodeLast<T>(in values[240], inverse, ref Unsafe.Add(ref blocks, 48));
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref blocks, DigitBytes), (Half)scale);
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters) =>
        parameters[0] = (float)(Half)Ternary.Scale<Lanes1>(block, importance, effort);

    public static float StoreParameter(int parameter, float value) => StoredHalf.Round(value);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0], 3, 1);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        Span<float> centred = stackalloc float[256];
        for (int i = 0; i < 256; i++) centred[i] = codes[i] - 1;
        EncodeDigits<Lanes1>(in centred[0], 1, 32, ref block[0]);
        EncodeDigits<Lanes1>(in centred[160], 1, 16, ref block[32]);
        EncodeLast<Lanes1>(in centred[240], 1, ref block[48]);
        MemoryMarshal.Write(block[DigitBytes..], (Half)parameters[0]);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        Span<float> centred = stackalloc float[256];
        DecodeDigits<Lanes1>(in block[0], 32, 5, 1, ref centred[0]);
        DecodeDigits<Lanes1>(in block[32], 16, 5, 1, ref centred[160]);
        DecodeDigits<Lanes1>(in block[48], 4, 4, 1, ref centred[240]);
        for (int i = 0; i < 256; i++) codes[i] = (byte)(centred[i] + 1);
        parameters[0] = HalfAt(in block[0], DigitBytes);
    }

    /// <summary>Digit n of byte m is value <c>n * byteCount + m</c>. A byte is a fraction of 256 rounded up: times three, the digit is what passes 256.</summary>
    private static void DecodeDigits<T>(ref readonly byte bytes, int byteCount, int digitCount, float d, ref float values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(d);
        for (int m = 0; m < byteCount; m += T.Width)
        {
            T rest = T.LoadBytes(ref ByteAt(in bytes, m));
            for (int n = 0; n < digitCount; n++)
            {
                T tripled = T.AddInt(rest, T.ShiftLeft(rest, 1));
                T.Store(T.ToFloat(T.AddInt(T.ShiftRight(tripled, 8), T.BroadcastInt(-1))) * step, ref Unsafe.Add(ref values, (n * byteCount) + m));
                rest = tripled & T.BroadcastInt(255);
            }
        }
    }

    /// <summary>Five digits of a byte, the first the most significant, are a number below 243; the byte is that x 256 / 243, rounded up.</summary>
    private static void EncodeDigits<T>(ref readonly float values, float inverse, int byteCount, ref byte bytes) where T : unmanaged, ILanes<T>
    {
        T factor = T.Broadcast(inverse);
        for (int m = 0; m < byteCount; m += T.Width)
        {
            T number = Ternary.Codes(Block32.At<T>(in values, m), factor);
            for (int n = 1; n < 5; n++)
            {
                T tripled = T.AddInt(number, T.ShiftLeft(number, 1));
                number = T.AddInt(tripled, Ternary.Codes(Block32.At<T>(in values, (n * byteCount) + m), factor));
            }

            // Half a 243rd more than rounding up needs: the product's own error does not reach that far.
            T scaled = T.MultiplyAdd(T.ToFloat(number), T.Broadcast(256 / 243f), T.Broadcast(242.5f / 243f));
            T.StoreBytes(T.ToInt(scaled), ref Unsafe.Add(ref bytes, m));
        }
    }

    /// <summary>The last 16 values, four digits a byte and a fifth that is zero.</summary>
    private static void EncodeLast<T>(ref readonly float values, float inverse, ref byte bytes) where T : unmanaged, ILanes<T>
    {
        Span<byte> codes = stackalloc byte[16];
        for (int i = 0; i < 16; i += T.Width) T.StoreBytes(Ternary.Codes(Block32.At<T>(in values, i), T.Broadcast(inverse)), ref codes[i]);
        // Four bytes at once: none exceeds 240.
        uint numbers = 0;
        for (int n = 0; n < 4; n++) numbers = (numbers * 3) + MemoryMarshal.Read<uint>(codes[(4 * n)..]);
        numbers *= 3;
        for (int m = 0; m < 4; m++) Unsafe.Add(ref bytes, m) = (byte)((((numbers >> (8 * m)) & 255) * 256 + 242) / 243);
    }
}
