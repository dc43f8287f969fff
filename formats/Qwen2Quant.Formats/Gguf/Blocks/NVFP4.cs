using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_nvfp4</c>: four UE4M3 scales, 32 bytes of nibbles; value <c>fp4 * scale</c>, 16 values a scale, with doubled table and halved scale.</summary>
internal readonly struct NVFP4 : ICodecFormat
{
    private const int SubBlocks = 4;
    private const int SubLength = 16;

    /// <summary>448, the last before NaN.</summary>
    private const int LargestScale = 0x7e;

    public static string Name => "NVFP4";
    public static int BlockValues => 64;
    public static int BlockBytes => 36;
    public static int BatchBlocks => Search.Stride / SubBlocks;
    public static float LargestMagnitude => 6 * 448;

    /// <summary>Parameters are the scales, negative where the ignored sign bit is set, and NaN for 0x7f.</summary>
    public static GridShape Shape => new(64, SubLength, 1, 16, SubBlocks);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        Span<byte> nibbles = stackalloc byte[SubLength];
        for (int k = 0; k < SubBlocks; k++)
        {
            ulong bytes = Unsafe.ReadUnaligned<ulong>(in ByteAt(in block, 4 + (8 * k)));
            Unsafe.WriteUnaligned(ref nibbles[0], bytes & 0x0f0f0f0f0f0f0f0f);
            Unsafe.WriteUnaligned(ref nibbles[8], (bytes >> 4) & 0x0f0f0f0f0f0f0f0f);
            T step = T.Broadcast(HalfScale(ByteAt(in block, k)));
            for (int j = 0; j < SubLength; j += T.Width) T.Store(T.Lookup16(in NibbleTable.Fp4[0], T.LoadBytes(ref nibbles[j])) * step, ref Unsafe.Add(ref values, (16 * k) + j));
        }
    }

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<byte> scales = stackalloc byte[Search.Stride];
        Span<byte> nibbles = stackalloc byte[SubLength];
        FindScales<T>(values, importance, effort, scales);
        for (int g = 0; g < values.Length / SubLength; g++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, g / SubBlocks * BlockBytes);
            int k = g % SubBlocks;
            Unsafe.Add(ref block, k) = scales[g];
            (T step, T inverse) = (T.Broadcast(HalfScale(scales[g])), T.Broadcast(1 / HalfScale(scales[g])));
            // Under a step of zero every level is zero, the first too.
            T mask = T.BroadcastInt(scales[g] == 0 ? 0 : 15);
            for (int j = 0; j < SubLength; j += T.Width) T.StoreBytes(Fp4.Nibbles(Block32.At<T>(in values[0], (g * SubLength) + j), step, inverse) & mask, ref nibbles[j]);
            ulong bytes = Unsafe.ReadUnaligned<ulong>(in nibbles[0]) | (Unsafe.ReadUnaligned<ulong>(in nibbles[8]) << 4);
            Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 4 + (8 * k)), bytes);
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<byte> scales = stackalloc byte[Search.Stride];
        FindScales<Lanes1>(block, importance, effort, scales);
        for (int k = 0; k < SubBlocks; k++) parameters[k] = Parameter(scales[k]);
    }

    public static float StoreParameter(int parameter, float value)
    {
        float bounded = Math.Clamp(value, 0, Parameter((byte)LargestScale));
        byte below = ScaleByte(bounded);
        return below == LargestScale || bounded - Parameter(below) <= Parameter((byte)(below + 1)) - bounded ? Parameter(below) : Parameter((byte)(below + 1));
    }

    public static (int First, int Count) SubBlocksOf(int parameter) => (parameter, 1);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) =>
        new(0, float.IsNaN(parameters[subBlock]) ? 0 : MathF.Abs(parameters[subBlock]) * 0.5f, 16, 0, Fp4.Table);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        for (int k = 0; k < SubBlocks; k++)
        {
            block[k] = ScaleByte(parameters[k]);
            for (int j = 0; j < 8; j++) block[4 + (8 * k) + j] = (byte)(Fp4.Nibble(codes[(16 * k) + j]) | (Fp4.Nibble(codes[(16 * k) + 8 + j]) << 4));
        }
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        for (int k = 0; k < SubBlocks; k++)
        {
            parameters[k] = Parameter(block[k]);
            for (int j = 0; j < 8; j++)
            {
                byte nibbles = block[4 + (8 * k) + j];
                (codes[(16 * k) + j], codes[(16 * k) + 8 + j]) = ((byte)Fp4.Code(nibbles & 15), (byte)Fp4.Code(nibbles >> 4));
            }
        }
    }

    private static float Parameter(byte bits) => bits == 0x7f ? float.NaN : float.CopySign(2 * HalfScale(bits), (bits & 0x80) != 0 ? -1f : 1f);

    /// <summary>Inverse of <see cref="Parameter"/>.</summary>
    private static byte ScaleByte(float parameter)
    {
        if (float.IsNaN(parameter)) return 0x7f;
        uint bits = BitConverter.SingleToUInt32Bits(MathF.Abs(parameter));
        uint magnitude = bits < 121 << 23 ? (uint)(MathF.Abs(parameter) * 512) : (bits >> 20) - (120 << 3);
        return (byte)(magnitude | ((BitConverter.SingleToUInt32Bits(parameter) >> 24) & 0x80));
    }

    /// <summary>Half of an E4M3 value whose sign bit is ignored; 0x7f, NaN in the format, is zero as in ggml.</summary>
    private static float HalfScale(byte bits)
    {
        if (bits == 0x7f) return 0;
        int exponent = (bits >> 3) & 15;
        int mantissa = bits & 7;
        return exponent == 0 ? mantissa / 1024f : BitConverter.Int32BitsToSingle(((exponent + 119) << 23) | (mantissa << 20));
    }

    /// <summary>ggml's: a sixth of the peak, rounded, ties up; from 248 on it takes 448, and below 2^-6 no more than 7 x 2^-9.</summary>
    private static uint ReferenceScale(float peak)
    {
        float value = peak / 6;
        if (value < 1 / 64f) return Math.Min((uint)((value * 512) + 0.5f), 7);
        // The exponent's bias goes from 127 to 7, and the bit below the third of the mantissa rounds.
        uint scale = ((BitConverter.SingleToUInt32Bits(value) + 0x80000) >> 20) - (120 << 3);
        return scale < 0x78 ? scale : LargestScale;
    }

    private static void FindScales<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<byte> scales) where T : unmanaged, ILanes<T>
    {
        int count = values.Length / SubLength;
        Span<float> lanes = stackalloc float[SubLength * Search.Stride];
        Search.Transpose(values, SubLength, lanes);
        Span<float> peaks = stackalloc float[Search.Stride];
        for (int g = 0; g < count; g += T.Width) T.Store(Fp4.Peak<T>(in lanes[g], SubLength), ref peaks[g]);
        for (int g = 0; g < count; g++) scales[g] = (byte)ReferenceScale(peaks[g]);
        if (effort == Effort.Reference) return;
        Span<float> weights = stackalloc float[SubLength * Search.Stride];
        if (importance.IsEmpty) weights.Fill(1);
        else Search.Transpose(importance, SubLength, weights);
        for (int g = 0; g < count; g += T.Width) SearchScales<T>(in lanes[g], in weights[g], effort, T.Greater(T.Load(in peaks[g]), T.Broadcast(0)), ref scales[g]);
    }

    /// <summary>The scale of least error among those from about 3/4 to 7/4 of ggml's, at high effort to its multiples and fractions. Eight steps are a power of two.</summary>
    private static void SearchScales<T>(ref readonly float values, ref readonly float weights, Effort effort, T alive, ref byte scales) where T : unmanaged, ILanes<T>
    {
        (int first, int last) = effort switch { Effort.Fast => (-2, 5), Effort.Normal => (-5, 8), _ => (-20, 10) };
        T center = T.ToFloat(T.LoadBytes(ref scales));
        T bestScale = center;
        T best = T.Broadcast(float.PositiveInfinity);
        for (int offset = first; offset <= last; offset++)
        {
            T scale = LaneMath.Clamp(center + T.Broadcast(offset), 1, LargestScale);
            T bits = T.ToInt(scale);
            T normal = T.AddInt(T.ShiftLeft(bits, 20), T.BroadcastInt(119 << 23));
            T step = T.Select(T.GreaterInt(T.BroadcastInt(8), bits), scale * T.Broadcast(1 / 1024f), normal);
            T error = Fp4.Error<T>(in values, in weights, SubLength, T.Broadcast(1) / step) * step * step;
            T better = T.Greater(best, error);
            bestScale = T.Select(better, scale, bestScale);
            best = T.Select(better, error, best);
        }

        T.StoreBytes(T.ToInt(bestScale & alive), ref scales);
    }
}
