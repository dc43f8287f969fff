using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>What tells Q4_0, Q4_1, Q5_0 and Q5_1 apart.</summary>
internal interface INibbleFormat
{
    static abstract string Name { get; }

    /// <summary>4 or 5.</summary>
    static abstract int CodeBits { get; }

    /// <summary>True when a block adds a minimum, false when its codes are centred.</summary>
    static abstract bool HasMinimum { get; }
}

/// <summary>
/// ggml's <c>block_q4_0</c>, <c>q4_1</c>, <c>q5_0</c> and <c>q5_1</c>: half d, half m where the format has a minimum, 32 fifth bits where it has 5, 16 bytes of nibbles.
/// Value <c>(q - 2^(bits - 1)) * d</c> or <c>q * d + m</c>.
/// </summary>
internal readonly partial struct NibbleBlock<TFormat> : ICodecFormat, IIntegerFormat where TFormat : struct, INibbleFormat
{
    public static string Name => TFormat.Name;
    public static int BlockValues => 32;
    public static int BlockBytes => NibbleOffset + 16;
    public static int BatchBlocks => Block32.Batch;

    private static int CodeCount
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 1 << TFormat.CodeBits;
    }

    internal static int Zero
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => TFormat.HasMinimum ? 0 : CodeCount / 2;
    }

    internal static int FifthBitOffset
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => TFormat.HasMinimum ? 4 : 2;
    }

    internal static int NibbleOffset
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => FifthBitOffset + (TFormat.CodeBits == 5 ? 4 : 0);
    }

    /// <summary>A minimum is stored as it is, a centred scale is 1 / 2^(bits - 1) of the extreme; a search under importance may exceed either by less than a factor of two.</summary>
    public static float LargestMagnitude => (TFormat.HasMinimum ? 65504f : 65504f * Zero) / 2;

    public static GridShape Shape => new(32, 32, 1, CodeCount, TFormat.HasMinimum ? 2 : 1);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float step = HalfAt(in block, 0);
        float origin = TFormat.HasMinimum ? HalfAt(in block, 2) : -0f;
        ref byte nibbles = ref ByteAt(in block, NibbleOffset);
        if (TFormat.CodeBits == 5) Block32.DecodeFive<T>(in nibbles, UIntAt(in block, FifthBitOffset), Zero, step, origin, ref values);
        else Block32.Decode<T>(in nibbles, Zero, step, origin, ref values);
    }

    public static bool HasOrigins => TFormat.HasMinimum;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride)
    {
        scales = HalfAt(in block, 0);
        if (TFormat.HasMinimum) origins = HalfAt(in block, 2);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins)
    {
        origins = TFormat.HasMinimum ? EightHalves.At(blocks + 2, BlockBytes) : default;
        return EightHalves.At(blocks, BlockBytes);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run)
    {
        Vector256<byte> codes = Shorts.Nibbles(ref ByteAt(in block, NibbleOffset));
        if (TFormat.CodeBits == 5) codes |= Shorts.FifthBits(UIntAt(in block, FifthBitOffset));
        return Shorts.Widen(codes.AsSByte() - Vector256.Create((sbyte)Zero));
    }

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        if (effort != Effort.Reference && TFormat.HasMinimum) SearchAffine<T>(values, importance, effort, ref blocks);
        else if (effort != Effort.Reference) SearchSymmetric<T>(values, importance, effort, ref blocks);
        else if (importance.IsEmpty) EncodeBatch<T>(values, ref blocks);
        else EncodeWeighted<T>(values, importance, rowVariance, ref blocks);
    }

    /// <summary>Without a minimum the value of largest magnitude lies on code 0, and d takes the sign that this asks for.</summary>
    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        if (TFormat.HasMinimum && effort != Effort.Reference)
        {
            Span<byte> encoded = stackalloc byte[BlockBytes];
            SearchedFit.Encode<NibbleBlock<TFormat>>(block, importance, effort, encoded);
            (parameters[0], parameters[1]) = (HalfAt(in encoded[0], 0), HalfAt(in encoded[0], 2));
            return;
        }

        (float scale, float minimum) = (0, 0);
        if (importance.IsEmpty)
        {
            if (TFormat.HasMinimum)
            {
                (minimum, float high) = Block32.Range<Lanes1>(in block[0]);
                scale = (high - minimum) / (CodeCount - 1);
            }
            else
            {
                scale = effort <= Effort.Fast ? Block32.Extreme<Lanes1>(in block[0]) / -Zero : FitSymmetric(block, importance, effort);
            }
        }
        else if (!TFormat.HasMinimum && effort != Effort.Reference)
        {
            scale = FitSymmetric(block, importance, effort);
        }
        else
        {
            Span<float> values = stackalloc float[32 * Search.Stride];
            Span<float> weights = stackalloc float[32 * Search.Stride];
            Search.Transpose(block, 32, values);
            Search.Transpose(importance, 32, weights);
            (float inverse, float anchor) = (0, 0);
            FindScales<Lanes1>(ref values[0], ref weights[0], ref scale, ref minimum, ref inverse, ref anchor);
        }

        parameters[0] = (float)(Half)scale;
        if (TFormat.HasMinimum) parameters[1] = (float)(Half)minimum;
    }

    public static float StoreParameter(int parameter, float value) => StoredHalf.Round(value);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) =>
        TFormat.HasMinimum ? new(parameters[1], parameters[0], CodeCount) : Levels.Scaled(parameters[0], CodeCount, Zero);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        MemoryMarshal.Write(block, (Half)parameters[0]);
        if (TFormat.HasMinimum) MemoryMarshal.Write(block[2..], (Half)parameters[1]);
        uint fifthBits = 0;
        for (int j = 0; j < 16; j++)
        {
            block[NibbleOffset + j] = (byte)((codes[j] & 15) | (codes[j + 16] << 4));
            fifthBits |= (uint)(((codes[j] >> 4) << j) | ((codes[j + 16] >> 4) << (j + 16)));
        }

        if (TFormat.CodeBits == 5) MemoryMarshal.Write(block[FifthBitOffset..], fifthBits);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], 0);
        if (TFormat.HasMinimum) parameters[1] = HalfAt(in block[0], 2);
        uint fifthBits = TFormat.CodeBits == 5 ? UIntAt(in block[0], FifthBitOffset) : 0;
        for (int j = 0; j < 16; j++)
        {
            byte nibbles = block[NibbleOffset + j];
            codes[j] = (byte)((nibbles & 15u) | (((fifthBits >> j) & 1) << 4));
            codes[j + 16] = (byte)(((uint)nibbles >> 4) | (((fifthBits >> (j + 16)) & 1) << 4));
        }
    }

    private static void EncodeBatch<T>(ReadOnlySpan<float> values, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        ref float from = ref MemoryMarshal.GetReference(values);
        int blockCount = values.Length / 32;
        Span<float> scales = stackalloc float[Block32.Batch];
        Span<float> minima = stackalloc float[Block32.Batch];
        Span<float> inverses = stackalloc float[Block32.Batch];
        Span<ushort> halves = stackalloc ushort[Block32.Batch];
        Span<ushort> minimumHalves = stackalloc ushort[Block32.Batch];
        if (TFormat.HasMinimum)
        {
            Span<float> highs = stackalloc float[Block32.Batch];
            Block32.Ranges<T>(in from, blockCount, minima, highs);
            // A range of zeros of both signs is plus zero.
            for (int b = 0; b < blockCount; b++) scales[b] = ((highs[b] - minima[b]) + 0f) / (CodeCount - 1);
        }
        else
        {
            Block32.Extremes<T>(in from, blockCount, scales);
            for (int b = 0; b < Block32.Batch; b += T.Width) T.Store(Block32.At<T>(ref scales[0], b) / T.Broadcast(-Zero), ref scales[b]);
        }

        Block32.Scale<T>(ref scales[0], ref inverses[0], ref halves[0]);
        if (TFormat.HasMinimum) HalfRows.Narrow(minima, minimumHalves);
        StoreCodes<T>(in from, blockCount, inverses, minima, halves, minimumHalves, ref blocks);
    }

    // Apart from the scales: with them the compiler runs out of its budget for inlining within the innermost loop.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void StoreCodes<T>(
        ref readonly float from, int blockCount, ReadOnlySpan<float> inverses, ReadOnlySpan<float> minima, ReadOnlySpan<ushort> halves, ReadOnlySpan<ushort> minimumHalves,
        ref byte blocks) where T : unmanaged, ILanes<T>
    {
        (int blockBytes, int fifthBitOffset, int nibbleOffset) = (BlockBytes, FifthBitOffset, NibbleOffset);
        (float rounding, float limit) = (TFormat.HasMinimum ? 0.5f : Zero + 0.5f, CodeCount - 1);
        for (int b = 0; b < blockCount; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * blockBytes);
            ref byte nibbles = ref Unsafe.Add(ref block, nibbleOffset);
            Unsafe.WriteUnaligned(ref block, halves[b]);
            if (TFormat.HasMinimum) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 2), minimumHalves[b]);
            T shift = T.Broadcast(TFormat.HasMinimum ? minima[b] : 0);
            T inverse = T.Broadcast(inverses[b]);
            uint fifthBits = 0;
            for (int j = 0; j < 16; j += T.Width)
            {
                T low = Block32.Codes(Block32.At<T>(in from, (b * 32) + j), shift, inverse, rounding, limit);
                T high = Block32.Codes(Block32.At<T>(in from, (b * 32) + j + 16), shift, inverse, rounding, limit);
                fifthBits |= Block32.StoreNibbles(low, high, j, ref nibbles);
            }

            if (TFormat.CodeBits == 5) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, fifthBitOffset), fifthBits);
        }
    }

    /// <summary>ggml's imatrix path: searched scales, rounded only where they are stored. Weights are <c>w * sqrt(variance of the row + x^2)</c>.</summary>
    private static void EncodeWeighted<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[32 * Search.Stride];
        Span<float> weights = stackalloc float[32 * Search.Stride];
        Search.Transpose(values, 32, lanes);
        Search.Transpose(importance, 32, weights);
        for (int i = 0; i < lanes.Length; i += T.Width)
        {
            T value = Block32.At<T>(ref lanes[0], i);
            T.Store(Block32.At<T>(ref weights[0], i) * T.Sqrt(T.Broadcast(rowVariance) + (value * value)), ref weights[i]);
        }

        Span<float> scales = stackalloc float[Search.Stride];
        Span<float> minima = stackalloc float[Search.Stride];
        Span<float> inverses = stackalloc float[Search.Stride];
        Span<float> anchors = stackalloc float[Search.Stride];
        for (int g = 0; g < Search.Stride; g += T.Width) FindScales<T>(ref lanes[g], ref weights[g], ref scales[g], ref minima[g], ref inverses[g], ref anchors[g]);
        for (int b = 0; b < values.Length / 32; b++)
        {
            ref float from = ref Unsafe.Add(ref MemoryMarshal.GetReference(values), b * 32);
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            (T inverse, T anchor) = (T.Broadcast(inverses[b]), T.Broadcast(anchors[b]));
            uint fifthBits = 0;
            for (int j = 0; j < 16; j += T.Width)
            {
                T low = SearchedCodes(Block32.At<T>(ref from, j), inverse, anchor);
                T high = SearchedCodes(Block32.At<T>(ref from, j + 16), inverse, anchor);
                fifthBits |= Block32.StoreNibbles(low, high, j, ref Unsafe.Add(ref block, NibbleOffset));
            }

            Unsafe.WriteUnaligned(ref block, (Half)scales[b]);
            if (TFormat.HasMinimum) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 2), (Half)minima[b]);
            if (TFormat.CodeBits == 5) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, FifthBitOffset), fifthBits);
        }
    }

    private static T SearchedCodes<T>(T values, T inverse, T anchor) where T : unmanaged, ILanes<T> =>
        TFormat.HasMinimum ? AffineReference.Codes(values, inverse, anchor, CodeCount - 1) : Search.SymmetricCodes(values, inverse, Zero);

    private static void FindScales<T>(ref readonly float values, ref readonly float weights, ref float scale, ref float minimum, ref float inverse, ref float anchor)
        where T : unmanaged, ILanes<T>
    {
        if (TFormat.HasMinimum) AffineReference.Find<T>(in values, in weights, 32, CodeCount - 1, AffineTries.Weighted, ref scale, ref minimum, ref inverse, ref anchor);
        else Search.Symmetric<T>(in values, in weights, 32, Zero, ref scale, ref inverse);
    }
}
