using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q6_K</c>: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed sub-scales, half d; value <c>(d * scale) * (q - 32)</c>, 16 values a scale.</summary>
internal readonly struct Q6_K : ICodecFormat, IIntegerFormat
{
    private const int HighOffset = 128;
    private const int ScaleOffset = 192;
    private const int HalfOffset = 208;
    private const int SubBlocks = 16;
    private const int SubLength = 16;
    private const int Zero = 32;
    private const int ScaleLimit = 128;

    public static string Name => "Q6_K";
    public static int BlockValues => 256;
    public static int BlockBytes => 210;
    public static int BatchBlocks => 1;

    /// <summary>A searched scale is about 1/32 of its sub-block's extreme, under importance less than twice that; the stored d is 1/128 of the largest.</summary>
    public static float LargestMagnitude => 65504f * 128 * 16;

    public static GridShape Shape => new(256, SubLength, 1, 64, 1 + SubBlocks);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, HalfOffset);
        for (int k = 0; k < SubBlocks; k++)
        {
            (int half, int plane) = (k >> 3, (k >> 1) & 3);
            int first = (k & 1) * SubLength;
            ref byte low = ref ByteAt(in block, (64 * half) + (32 * (plane & 1)) + first);
            ref byte high = ref ByteAt(in block, HighOffset + (32 * half) + first);
            T step = T.Broadcast(d * (sbyte)ByteAt(in block, ScaleOffset + k));
            for (int l = 0; l < SubLength; l += T.Width)
            {
                T low4 = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref low, l)), 4 * (plane >> 1)) & T.BroadcastInt(15);
                T high2 = T.ShiftRight(T.LoadBytes(ref Unsafe.Add(ref high, l)), 2 * plane) & T.BroadcastInt(3);
                T code = T.AddInt(low4 | T.ShiftLeft(high2, 4), T.BroadcastInt(-Zero));
                T.Store(step * T.ToFloat(code), ref Unsafe.Add(ref values, (k * SubLength) + l));
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
        Vector256<byte> low = Shorts.Bits(Shorts.Load(ref ByteAt(in block, (64 * half) + (32 * (plane & 1)))), 4 * (plane >> 1), 15);
        Vector256<byte> high = Shorts.Bits(Shorts.Load(ref ByteAt(in block, HighOffset + (32 * half))), 2 * plane, 3);
        Vector256<sbyte> code = (low | Vector256.ShiftLeft(high.AsUInt16(), 4).AsByte()).AsSByte() - Vector256.Create((sbyte)Zero);
        ref byte scales = ref ByteAt(in block, ScaleOffset + (2 * run));
        return Shorts.Widen(code) * Shorts.Pair((sbyte)scales, (sbyte)Unsafe.Add(ref scales, 1));
    }

    /// <summary>Weights of the search are x^2, or the importance itself, without ggml's usual square root.</summary>
    [SkipLocalsInit]
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> inverses = stackalloc float[SubBlocks];
        Span<float> parameters = stackalloc float[1 + SubBlocks];
        Span<byte> codes = stackalloc byte[256];
        if (effort != Effort.Reference)
        {
            SignedSubBlocks.Search<T>(values, importance, Zero, ScaleLimit, effort, parameters);
            SignedSubBlocks.Codes<T>(values, Zero, parameters, ref codes[0]);
            Pack<T>(ref codes[0], parameters, ref blocks);
            return;
        }

        if (!FindScales<T>(values, importance, inverses, parameters))
        {
            MemoryMarshal.CreateSpan(ref blocks, BlockBytes).Clear();
            return;
        }

        ref float from = ref MemoryMarshal.GetReference(values);
        for (int k = 0; k < SubBlocks; k++)
        {
            float step = parameters[0] * parameters[1 + k];
            for (int l = 0; l < SubLength; l += T.Width)
            {
                T value = Block32.At<T>(ref from, (k * SubLength) + l);
                // Where the stored step is zero ggml keeps the codes of the search.
                T code = step == 0
                    ? Search.SymmetricCodes(value, T.Broadcast(inverses[k]), Zero)
                    : T.AddInt(T.ToInt(LaneMath.RoundToEven(LaneMath.Clamp(value / T.Broadcast(step), -Zero, Zero - 1))), T.BroadcastInt(Zero));
                T.StoreBytes(code, ref codes[(k * SubLength) + l]);
            }
        }

        Pack<T>(ref codes[0], parameters, ref blocks);
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> inverses = stackalloc float[SubBlocks];
        if (effort != Effort.Reference) SignedSubBlocks.Search<Lanes1>(block, importance, Zero, ScaleLimit, effort, parameters);
        else if (!FindScales<Lanes1>(block, importance, inverses, parameters)) parameters.Clear();
    }

    public static float StoreParameter(int parameter, float value) => parameter == 0 ? StoredHalf.Round(value) : Parameters.Integer(value, -128, 127);

    public static (int First, int Count) SubBlocksOf(int parameter) => parameter == 0 ? Parameters.OfBlock : (parameter - 1, 1);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0] * parameters[1 + subBlock], 64, Zero);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block) =>
        Pack<Lanes1>(ref MemoryMarshal.GetReference(codes), parameters, ref block[0]);

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        for (int i = 0; i < 256; i++)
        {
            (int half, int plane, int l) = (i >> 7, (i >> 5) & 3, i & 31);
            int low = (block[(64 * half) + (32 * (plane & 1)) + l] >> (4 * (plane >> 1))) & 15;
            int high = (block[HighOffset + (32 * half) + l] >> (2 * plane)) & 3;
            codes[i] = (byte)(low | (high << 4));
        }

        parameters[0] = HalfAt(in block[0], HalfOffset);
        for (int k = 0; k < SubBlocks; k++) parameters[1 + k] = (sbyte)block[ScaleOffset + k];
    }

    private static void Pack<T>(ref byte codes, ReadOnlySpan<float> parameters, ref byte block) where T : unmanaged, ILanes<T>
    {
        T low4 = T.BroadcastInt(15);
        for (int half = 0; half < 2; half++)
        {
            for (int l = 0; l < 32; l += T.Width)
            {
                ref byte column = ref Unsafe.Add(ref codes, (128 * half) + l);
                T code0 = T.LoadBytes(ref column);
                T code1 = T.LoadBytes(ref Unsafe.Add(ref column, 32));
                T code2 = T.LoadBytes(ref Unsafe.Add(ref column, 64));
                T code3 = T.LoadBytes(ref Unsafe.Add(ref column, 96));
                T.StoreBytes((code0 & low4) | T.ShiftLeft(code2 & low4, 4), ref Unsafe.Add(ref block, (64 * half) + l));
                T.StoreBytes((code1 & low4) | T.ShiftLeft(code3 & low4, 4), ref Unsafe.Add(ref block, (64 * half) + 32 + l));
                T high = T.ShiftRight(code0, 4) | T.ShiftLeft(T.ShiftRight(code1, 4), 2) | T.ShiftLeft(T.ShiftRight(code2, 4), 4) | T.ShiftLeft(T.ShiftRight(code3, 4), 6);
                T.StoreBytes(high, ref Unsafe.Add(ref block, HighOffset + (32 * half) + l));
            }
        }

        for (int k = 0; k < SubBlocks; k += T.Width) T.StoreBytes(T.ToInt(Block32.At<T>(in parameters[1], k)), ref Unsafe.Add(ref block, ScaleOffset + k));
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, HalfOffset), (Half)parameters[0]);
    }

    /// <summary>Searches the sub-blocks' scales and rounds them as they are stored. False when all are zero: the block is then all zero bytes.</summary>
    private static bool FindScales<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Span<float> inverses, Span<float> parameters)
        where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[256];
        Span<float> weights = stackalloc float[256];
        Search.Transpose(values, SubLength, lanes);
        if (importance.IsEmpty)
        {
            for (int i = 0; i < 256; i += T.Width)
            {
                T value = Block32.At<T>(ref lanes[0], i);
                T.Store(value * value, ref weights[i]);
            }
        }
        else
        {
            Search.Transpose(importance, SubLength, weights);
        }

        Span<float> scales = stackalloc float[SubBlocks];
        for (int g = 0; g < SubBlocks; g += T.Width)
        {
            Search.Symmetric<T>(ref lanes[g], ref weights[g], SubLength, Zero, ref scales[g], ref inverses[g]);
        }

        float extreme = 0;
        foreach (float scale in scales)
        {
            if (MathF.Abs(scale) > MathF.Abs(extreme)) extreme = scale;
        }

        if (MathF.Abs(extreme) < Search.Epsilon) return false;
        float scaleInverse = -128 / extreme;
        parameters[0] = (float)(Half)(1 / scaleInverse);
        for (int k = 0; k < SubBlocks; k++) parameters[1 + k] = MathF.Min(127, MathF.Round(scaleInverse * scales[k], MidpointRounding.ToEven));
        return true;
    }
}
