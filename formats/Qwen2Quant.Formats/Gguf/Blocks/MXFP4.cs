using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_mxfp4</c>: one E8M0 exponent, 16 bytes of nibbles; value <c>fp4 * 2^(e - 127)</c>, with doubled table and halved scale.</summary>
internal readonly struct MXFP4 : ICodecFormat, IIntegerFormat
{
    /// <summary>The largest exponent ggml writes: 12 times its half is still finite.</summary>
    private const int LargestExponent = 252;

    private static readonly float[] Ones = [.. Enumerable.Repeat(1f, 32)];

    public static string Name => "MXFP4";
    public static int BlockValues => 32;
    public static int BlockBytes => 17;
    public static int BatchBlocks => 1;
    public static float LargestMagnitude => float.MaxValue;

    /// <summary>The parameter is the halved scale.</summary>
    public static GridShape Shape => new(32, 32, 1, 16, 1);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        NibbleTable.Decode<T>(ref ByteAt(in block, 1), in NibbleTable.Fp4[0], HalfScale(ByteAt(in block, 0)), ref values);
    }

    public static bool HasOrigins => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride) => scales = HalfScale(ByteAt(in block, 0));

    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins) => Shorts.UnpackedScales<MXFP4>(blocks, out origins);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run) => Shorts.Lookup(ref ByteAt(in block, 1), NibbleTable.Fp4Integers);

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        byte exponent = FindExponent<T>(values, importance, effort);
        blocks = exponent;
        (T step, T inverse) = (T.Broadcast(HalfScale(exponent)), T.Broadcast(Inverse(exponent)));
        for (int j = 0; j < 16; j += T.Width)
        {
            T low = Fp4.Nibbles(Block32.At<T>(in values[0], j), step, inverse);
            T high = Fp4.Nibbles(Block32.At<T>(in values[0], j + 16), step, inverse);
            T.StoreBytes(low | T.ShiftLeft(high, 4), ref Unsafe.Add(ref blocks, 1 + j));
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters) =>
        parameters[0] = HalfScale(FindExponent<Lanes1>(block, importance, effort));

    public static float StoreParameter(int parameter, float value) => float.NaN;

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

    /// <summary>2^(128 - e), for exponents of 1 to <see cref="LargestExponent"/>, and of 0, which only zeros have, a finite number.</summary>
    private static float Inverse(int exponent) => BitConverter.Int32BitsToSingle((255 - Math.Max(exponent, 1)) << 23);

    /// <summary>
    /// ggml's exponent puts the peak between 4 and 8 units; below 2^-124, where its own soon has no byte, 1 is taken. The others' is the one of least error among those near it:
    /// one above it nothing is cut off; one below, the peak is cut to 6 of its 8 to 16 units, which only importance asks for.
    /// </summary>
    private static byte FindExponent<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort) where T : unmanaged, ILanes<T>
    {
        float peak = Block32.Peak<T>(in values[0]);
        if (peak == 0) return 0;
        if (effort == Effort.Reference) return (byte)Math.Clamp(MathF.Floor(MathF.Log2(peak)) + 125, 1, LargestExponent);
        ref readonly float weights = ref importance.IsEmpty ? ref Ones[0] : ref importance[0];
        int center = (BitConverter.SingleToInt32Bits(peak) >> 23) - 2;
        int first = effort switch { Effort.Fast => 0, Effort.Normal => -1, _ => -4 };
        int best = Math.Clamp(center, 1, LargestExponent);
        float bestError = float.PositiveInfinity;
        for (int offset = first; offset <= 1; offset++)
        {
            int exponent = Math.Clamp(center + offset, 1, LargestExponent);
            float unit = BitConverter.Int32BitsToSingle((exponent - center + 127) << 23);
            float error = Error<T>(in values[0], in weights, Inverse(exponent)) * unit * unit;
            if (error < bestError) (best, bestError) = (exponent, error);
        }

        return (byte)best;
    }

    /// <summary>The sum of weight x squared error in units of the step.</summary>
    private static float Error<T>(ref readonly float values, ref readonly float weights, float inverse) where T : unmanaged, ILanes<T>
    {
        Span<float> errors = stackalloc float[SixteenSums.Count];
        T factor = T.Broadcast(inverse);
        for (int j = 0; j < 16; j += T.Width)
        {
            T error = Fp4.AddError(Block32.At<T>(in values, j), Block32.At<T>(in weights, j), factor, T.Broadcast(0));
            T.Store(Fp4.AddError(Block32.At<T>(in values, j + 16), Block32.At<T>(in weights, j + 16), factor, error), ref errors[j]);
        }

        return SixteenSums.Fold<T>(ref errors[0]);
    }
}
