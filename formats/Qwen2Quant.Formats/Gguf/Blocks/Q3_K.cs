using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q3_K</c>: 32 bytes of high bits, 64 of low bit pairs, 12 of 6-bit scales, half d; value <c>(d * (scale - 32)) * (q - 4)</c>, 16 values a scale.</summary>
internal readonly struct Q3_K : ICodecFormat, IIntegerFormat
{
    private const int LowOffset = 32;
    private const int ScaleOffset = 96;
    private const int HalfOffset = 108;
    private const int SubBlocks = 16;
    private const int SubLength = 16;
    private const int Zero = 4;
    private const int ScaleZero = 32;

    public static string Name => "Q3_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 110;
    public static int BatchBlocks => 1;

    /// <summary>A scale is about 1/4 of its sub-block's extreme, and within a factor of two of that whatever the search; the stored d is 1/32 of the largest.</summary>
    public static float LargestMagnitude => 65504f * ScaleZero * Zero / 2;

    /// <summary>The block's parameters are d and the signed scales, -32 to 31.</summary>
    public static GridShape Shape => new(256, SubLength, 1, 8, 1 + SubBlocks);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, HalfOffset);
        for (int k = 0; k < SubBlocks; k++)
        {
            T step = T.Broadcast(d * Scale(in block, k));
            (int half, int plane) = (k >> 3, (k >> 1) & 3);
            int first = 16 * (k & 1);
            ref byte high = ref ByteAt(in block, first);
            ref byte low = ref ByteAt(in block, LowOffset + (32 * half) + first);
            for (int l = 0; l < SubLength; l += T.Width)
            {
                T low2 = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref low, l)), 2 * plane) & T.BroadcastInt(3);
                T high1 = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref high, l)), (4 * half) + plane) & T.BroadcastInt(1);
                T code = T.AddInt(low2 | T.ShiftLeft(high1, 2), T.BroadcastInt(-Zero));
                T.Store(step * T.ToFloat(code), ref Unsafe.Add(ref values, (SubLength * k) + l));
            }
        }
    }

    public static bool HasOrigins => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride) =>
        SignedSubBlocks.Spread(HalfAt(in block, HalfOffset), ref scales, stride);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins)
    {
        origins = default;
        return Vector256.Create(HalfAt(ref *blocks, HalfOffset));
    }

    /// <summary>With the sub-scales in them.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run)
    {
        (int half, int plane) = (run >> 2, run & 3);
        Vector256<byte> low = Shorts.Bits(Shorts.Load(ref ByteAt(in block, LowOffset + (32 * half))), 2 * plane, 3);
        Vector256<byte> high = Shorts.Bits(Shorts.Load(ref ByteAt(in block, 0)), run, 1);
        Vector256<sbyte> code = (low | Vector256.ShiftLeft(high.AsUInt16(), 2).AsByte()).AsSByte() - Vector256.Create((sbyte)Zero);
        return Shorts.Widen(code) * Shorts.Pair(Scale(in block, 2 * run), Scale(in block, (2 * run) + 1));
    }

    [SkipLocalsInit]
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> parameters = stackalloc float[1 + SubBlocks];
        Span<byte> codes = stackalloc byte[256];
        if (effort != Effort.Reference)
        {
            SignedSubBlocks.Search<T>(values, importance, Zero, ScaleZero, effort, parameters);
            SignedSubBlocks.Codes<T>(values, Zero, parameters, ref codes[0]);
        }
        else
        {
            Span<float> searched = stackalloc float[256];
            Reference<T>(values, importance, searched, parameters);
            for (int i = 0; i < 256; i += T.Width)
            {
                float step = parameters[0] * parameters[1 + (i / SubLength)];
                T quotient = Block32.At<T>(in values[0], i) / T.Broadcast(step);
                // Where the stored step is zero ggml keeps the codes of the search.
                T code = step == 0 ? Block32.At<T>(ref searched[0], i) : LaneMath.RoundToEven(LaneMath.Clamp(quotient, -Zero, Zero - 1)) + T.Broadcast(Zero);
                T.StoreBytes(T.ToInt(code), ref codes[i]);
            }
        }

        Pack<T>(ref codes[0], parameters, ref blocks);
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> searched = stackalloc float[256];
        if (effort == Effort.Reference) Reference<Lanes1>(block, importance, searched, parameters);
        else SignedSubBlocks.Search<Lanes1>(block, importance, Zero, ScaleZero, effort, parameters);
    }

    public static float StoreParameter(int parameter, float value) => parameter == 0 ? StoredHalf.Round(value) : Parameters.Integer(value, -ScaleZero, ScaleZero - 1);

    public static (int First, int Count) SubBlocksOf(int parameter) => parameter == 0 ? Parameters.OfBlock : (parameter - 1, 1);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0] * parameters[1 + subBlock], 8, Zero);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block) =>
        Pack<Lanes1>(ref MemoryMarshal.GetReference(codes), parameters, ref block[0]);

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        for (int i = 0; i < 256; i++)
        {
            int low = (block[LowOffset + (32 * (i >> 7)) + (i & 31)] >> (2 * ((i >> 5) & 3))) & 3;
            codes[i] = (byte)(low | (((block[i & 31] >> (i >> 5)) & 1) << 2));
        }

        parameters[0] = HalfAt(in block[0], HalfOffset);
        for (int k = 0; k < SubBlocks; k++) parameters[1 + k] = Scale(in block[0], k);
    }

    private static void Pack<T>(ref byte codes, ReadOnlySpan<float> parameters, ref byte block) where T : unmanaged, ILanes<T>
    {
        T low2 = T.BroadcastInt(3);
        for (int l = 0; l < 32; l += T.Width)
        {
            T high = T.BroadcastInt(0);
            for (int half = 1; half >= 0; half--)
            {
                T low = T.BroadcastInt(0);
                for (int plane = 3; plane >= 0; plane--)
                {
                    T code = T.LoadBytes(ref Unsafe.Add(ref codes, (128 * half) + (32 * plane) + l));
                    low = T.ShiftLeft(low, 2) | (code & low2);
                    high = T.ShiftLeft(high, 1) | T.ShiftRight(code, 2);
                }

                T.StoreBytes(low, ref Unsafe.Add(ref block, LowOffset + (32 * half) + l));
            }

            T.StoreBytes(high, ref Unsafe.Add(ref block, l));
        }

        Span<byte> scales = stackalloc byte[SubBlocks];
        for (int k = 0; k < SubBlocks; k += T.Width) T.StoreBytes(T.AddInt(T.ToInt(Block32.At<T>(in parameters[1], k)), T.BroadcastInt(ScaleZero)), ref scales[k]);
        const ulong low4 = 0x0f0f0f0f0f0f0f0f;
        ulong lowNibbles = Unsafe.ReadUnaligned<ulong>(ref scales[0]) & low4, highNibbles = Unsafe.ReadUnaligned<ulong>(ref scales[8]) & low4;
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, ScaleOffset), lowNibbles | (highNibbles << 4));
        uint pairs = 0;
        for (int quarter = 0; quarter < 4; quarter++) pairs |= ((Unsafe.ReadUnaligned<uint>(ref scales[4 * quarter]) >> 4) & 0x03030303) << (2 * quarter);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, ScaleOffset + 8), pairs);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, HalfOffset), (Half)parameters[0]);
    }

    /// <summary>Low nibbles of scales 0 to 7 and 8 to 15 share bytes 96 to 103; bit pairs 4 and 5 lie in bytes 104 to 107, four scales a byte.</summary>
    private static int Scale(ref readonly byte block, int k)
    {
        int low = (ByteAt(in block, ScaleOffset + (k & 7)) >> (4 * (k >> 3))) & 15;
        int high = (ByteAt(in block, ScaleOffset + 8 + (k & 3)) >> (2 * (k >> 2))) & 3;
        return (low | (high << 4)) - ScaleZero;
    }

    /// <summary>ggml's own scales, and the codes of its search, 0 to 7, as they were before the scales were rounded.</summary>
    private static void Reference<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Span<float> codes, Span<float> parameters) where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[256];
        Span<float> scales = stackalloc float[256];
        Search.Transpose(values, SubLength, lanes);
        if (importance.IsEmpty)
        {
            Span<float> laneCodes = stackalloc float[256];
            for (int g = 0; g < SubBlocks; g += T.Width) Search.Descend<T>(ref lanes[g], SubLength, Zero, ref laneCodes[g], ref scales[g]);
            for (int i = 0; i < 256; i++) codes[i] = laneCodes[((i % SubLength) * Search.Stride) + (i / SubLength)];
            float extreme = 0;
            for (int k = 0; k < SubBlocks; k++)
            {
                if (MathF.Abs(scales[k]) > MathF.Abs(extreme)) extreme = scales[k];
            }

            float scaleInverse = -ScaleZero / extreme;
            parameters[0] = extreme == 0 ? 0 : (float)(Half)(1 / scaleInverse);
            // ggml stores -32 for the scales of a block of zeros.
            for (int k = 0; k < SubBlocks; k++) parameters[1 + k] = extreme == 0 ? -ScaleZero : Math.Clamp(MathF.Round(scaleInverse * scales[k]), -ScaleZero, ScaleZero - 1);
            return;
        }

        float squares = 0;
        foreach (float value in values) squares += value * value;
        Span<float> weights = stackalloc float[256];
        Search.Transpose(importance, SubLength, weights);
        Span<float> inverses = stackalloc float[SubBlocks];
        Span<float> sums = stackalloc float[256];
        for (int g = 0; g < SubBlocks; g += T.Width)
        {
            T sum = T.Broadcast(0);
            for (int i = 0; i < SubLength; i++)
            {
                T value = Search.At<T>(ref lanes[g], i);
                T weight = Search.At<T>(ref weights[g], i) * T.Sqrt(T.Broadcast(2 * squares / 256) + (value * value));
                T.Store(weight, ref weights[(i * Search.Stride) + g]);
                sum += weight;
            }

            T.Store(sum, ref sums[g]);
            Search.Symmetric<T>(ref lanes[g], ref weights[g], SubLength, Zero, ref scales[g], ref inverses[g]);
        }

        for (int i = 0; i < 256; i += T.Width) T.Store(T.ToFloat(Search.SymmetricCodes(Block32.At<T>(in values[0], i), T.Broadcast(inverses[i / SubLength]), Zero)), ref codes[i]);
        // The scales are values of one group of their own, weighted by the sums of their sub-blocks' weights.
        for (int k = SubBlocks - 1; k >= 0; k--) (scales[k * Search.Stride], sums[k * Search.Stride]) = (scales[k], sums[k]);
        (float d, float inverse) = (0, 0);
        Search.Symmetric<Lanes1>(ref scales[0], ref sums[0], SubBlocks, ScaleZero, ref d, ref inverse);
        parameters[0] = (float)(Half)d;
        for (int k = 0; k < SubBlocks; k++)
        {
            Lanes1 code = Search.SymmetricCodes(new Lanes1(scales[k * Search.Stride]), new Lanes1(inverse), ScaleZero);
            float stored = 0;
            Lanes1.Store(Lanes1.ToFloat(code), ref stored);
            parameters[1 + k] = stored - ScaleZero;
        }
    }
}
