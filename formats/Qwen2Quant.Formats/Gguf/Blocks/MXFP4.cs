using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_mxfp4</c>: one E8M0 exponent, 16 bytes of nibbles; value <c>fp4 * 2^(e - 127)</c>, with doubled table and halved scale.</summary>
internal readonly struct MXFP4 : ICodecFormat
{
    /// <summary>The largest exponent ggml writes: 12 times its half is still finite.</summary>
    private const int LargestExponent = 252;

    public static string Name => "MXFP4";
    public static int BlockValues => 32;
    public static int BlockBytes => 17;
    public static int BatchBlocks => Search.Stride;
    public static float LargestMagnitude => float.MaxValue;

    /// <summary>The parameter is the halved scale.</summary>
    public static GridShape Shape => new(32, 32, 1, 16, 1);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        NibbleTable.Decode<T>(ref ByteAt(in block, 1), in NibbleTable.Fp4[0], HalfScale(ByteAt(in block, 0)), ref values);
    }

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<byte> exponents = stackalloc byte[Search.Stride];
        FindExponents<T>(values, importance, effort, exponents);
        for (int b = 0; b < values.Length / 32; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            block = exponents[b];
            float step = HalfScale(block);
            for (int j = 0; j < 16; j += T.Width)
            {
                T low = Fp4.Nibbles(Block32.At<T>(in values[0], (b * 32) + j), step);
                T high = Fp4.Nibbles(Block32.At<T>(in values[0], (b * 32) + j + 16), step);
                T.StoreBytes(low | T.ShiftLeft(high, 4), ref Unsafe.Add(ref block, 1 + j));
            }
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<byte> exponents = stackalloc byte[Search.Stride];
        FindExponents<Lanes1>(block, importance, effort, exponents);
        parameters[0] = HalfScale(exponents[0]);
    }

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(0, parameters[0], 16, 0, Fp4.Table);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        uint bits = BitConverter.SingleToUInt32Bits(parameters[0]);
        block[0] = (byte)(bits < 0x800000 ? bits >> 22 : (bits >> 23) + 1);
        for (int j = 0; j < 16; j++) block[1 + j] = (byte)(Fp4.Nibble(codes[j]) | (Fp4.Nibble(codes[j + 16]) << 4));
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfScale(block[0]);
        for (int j = 0; j < 16; j++) (codes[j], codes[j + 16]) = ((byte)Fp4.Code(block[1 + j] & 15), (byte)Fp4.Code(block[1 + j] >> 4));
    }

    /// <summary>2^(e - 128); 2^-128 and 2^-127 are denormal. 255 is NaN in the format and, as in ggml, 2^127 here.</summary>
    private static float HalfScale(byte exponent) => BitConverter.UInt32BitsToSingle(exponent < 2 ? 0x200000u << exponent : (exponent - 1u) << 23);

    private static void FindExponents<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<byte> exponents) where T : unmanaged, ILanes<T>
    {
        int count = values.Length / 32;
        if (effort == Effort.Reference)
        {
            for (int b = 0; b < count; b++) exponents[b] = ReferenceExponent(Block32.Peak<T>(in values[b * 32]));
            return;
        }

        Span<float> lanes = stackalloc float[32 * Search.Stride];
        Span<float> weights = stackalloc float[32 * Search.Stride];
        Search.Transpose(values, 32, lanes);
        if (importance.IsEmpty) weights.Fill(1);
        else Search.Transpose(importance, 32, weights);
        for (int g = 0; g < count; g += T.Width) SearchExponents<T>(in lanes[g], in weights[g], effort, ref exponents[g]);
    }

    /// <summary>ggml's: the peak lies between 4 and 8 units. Below 2^-125 its own has no byte, and 0 is taken.</summary>
    private static byte ReferenceExponent(float peak) => peak == 0 ? (byte)0 : (byte)Math.Clamp(MathF.Floor(MathF.Log2(peak)) + 125, 0, LargestExponent);

    /// <summary>
    /// The exponent of least error among those near ggml's. One above it nothing is cut off; one below, the peak is cut to 6 of its 8 to 16 units, which only importance asks for.
    /// </summary>
    private static void SearchExponents<T>(ref readonly float values, ref readonly float weights, Effort effort, ref byte exponents) where T : unmanaged, ILanes<T>
    {
        (int first, int last) = effort switch { Effort.Fast => (0, 1), Effort.Normal => (-1, 1), _ => (-4, 2) };
        T peak = Fp4.Peak<T>(in values, 32);
        T center = T.ToFloat(T.ShiftRight(peak, 23)) + T.Broadcast(-2);
        T bestExponent = LaneMath.Clamp(center, 1, LargestExponent);
        T best = T.Broadcast(float.PositiveInfinity);
        for (int offset = first; offset <= last; offset++)
        {
            T exponent = LaneMath.Clamp(center + T.Broadcast(offset), 1, LargestExponent);
            T inverse = T.ShiftLeft(T.ToInt(T.Broadcast(255) - exponent), 23);
            T unit = T.ShiftLeft(T.ToInt((exponent - center) + T.Broadcast(127)), 23);
            T error = Fp4.Error<T>(in values, in weights, 32, inverse) * unit * unit;
            T better = T.Greater(best, error);
            bestExponent = T.Select(better, exponent, bestExponent);
            best = T.Select(better, error, best);
        }

        T.StoreBytes(T.ToInt(bestExponent & T.Greater(peak, T.Broadcast(0))), ref exponents);
    }
}
