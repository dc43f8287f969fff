using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>What tells Q4_0, Q4_1, Q5_0 and Q5_1 apart.</summary>
internal interface INibbleFormat
{
    /// <summary>4 or 5.</summary>
    static abstract int CodeBits { get; }

    /// <summary>True when a block adds a minimum, false when its codes are centred.</summary>
    static abstract bool HasMinimum { get; }
}

/// <summary>
/// ggml's <c>block_q4_0</c>, <c>q4_1</c>, <c>q5_0</c> and <c>q5_1</c>: half d, half m where the format has a minimum, 32 fifth bits where it has 5, 16 bytes of nibbles.
/// Value <c>(q - 2^(bits - 1)) * d</c> or <c>q * d + m</c>.
/// </summary>
internal abstract class NibbleBlockType<TSelf> : LaneCodecType<TSelf>, ILaneEncoder, IBlockCodec where TSelf : NibbleBlockType<TSelf>, INibbleFormat
{
    public static int BlockValues => 32;
    public static int BlockBytes => NibbleOffset + 16;
    public static int BatchBlocks => Block32.Batch;

    private static int CodeCount => 1 << TSelf.CodeBits;
    private static int Zero => TSelf.HasMinimum ? 0 : CodeCount / 2;
    private static int FifthBitOffset => TSelf.HasMinimum ? 4 : 2;
    private static int NibbleOffset => FifthBitOffset + (TSelf.CodeBits == 5 ? 4 : 0);

    /// <summary>A minimum is stored as it is; a centred scale is 1 / 2^(bits - 1) of the extreme.</summary>
    public override float LargestMagnitude => TSelf.HasMinimum ? 65504f : 65504f * Zero;
    public override IBlockCodec Codec => this;

    public GridShape Shape => new(32, 32, 1, CodeCount, TSelf.HasMinimum ? 2 : 1);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float step = HalfAt(in block, 0);
        float origin = TSelf.HasMinimum ? HalfAt(in block, 2) : -0f;
        ref byte nibbles = ref ByteAt(in block, NibbleOffset);
        if (TSelf.CodeBits == 5) Block32.DecodeFive<T>(in nibbles, UIntAt(in block, FifthBitOffset), Zero, step, origin, ref values);
        else Block32.Decode<T>(in nibbles, Zero, step, origin, ref values);
    }

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, int blockCount, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        if (importance.IsEmpty) EncodeBatch<T>(values, blockCount, ref blocks);
        else EncodeWeighted<T>(values, importance, rowVariance, blockCount, ref blocks);
    }

    /// <summary>Without a minimum the value of largest magnitude lies on code 0, and d takes the sign that this asks for.</summary>
    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Span<float> parameters)
    {
        (float scale, float minimum) = (0, 0);
        if (importance.IsEmpty)
        {
            if (TSelf.HasMinimum)
            {
                (minimum, float high) = Block32.Range<Lanes1>(in block[0]);
                scale = (high - minimum) / (CodeCount - 1);
            }
            else
            {
                scale = Block32.Extreme<Lanes1>(in block[0]) / -Zero;
            }
        }
        else
        {
            Span<float> values = stackalloc float[32 * Search.Stride];
            Span<float> weights = stackalloc float[32 * Search.Stride];
            Search.Transpose(block, 32, values);
            Search.Transpose(importance, 32, weights);
            (Lanes1 bestScale, Lanes1 bestMinimum, _, _) = FindScales<Lanes1>(ref values[0], ref weights[0]);
            Lanes1.Store(bestScale, ref scale);
            Lanes1.Store(bestMinimum, ref minimum);
        }

        parameters[0] = (float)(Half)scale;
        if (TSelf.HasMinimum) parameters[1] = (float)(Half)minimum;
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) =>
        TSelf.HasMinimum ? new(parameters[1], parameters[0], CodeCount) : Levels.Scaled(parameters[0], CodeCount, Zero);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block) => PackBlock(codes, parameters, block);

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], 0);
        if (TSelf.HasMinimum) parameters[1] = HalfAt(in block[0], 2);
        uint fifthBits = TSelf.CodeBits == 5 ? UIntAt(in block[0], FifthBitOffset) : 0;
        for (int j = 0; j < 16; j++)
        {
            byte nibbles = block[NibbleOffset + j];
            codes[j] = (byte)((nibbles & 15u) | (((fifthBits >> j) & 1) << 4));
            codes[j + 16] = (byte)(((uint)nibbles >> 4) | (((fifthBits >> (j + 16)) & 1) << 4));
        }
    }

    private static void PackBlock(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        MemoryMarshal.Write(block, (Half)parameters[0]);
        if (TSelf.HasMinimum) MemoryMarshal.Write(block[2..], (Half)parameters[1]);
        uint fifthBits = 0;
        for (int j = 0; j < 16; j++)
        {
            block[NibbleOffset + j] = (byte)((codes[j] & 15) | (codes[j + 16] << 4));
            fifthBits |= (uint)(((codes[j] >> 4) << j) | ((codes[j + 16] >> 4) << (j + 16)));
        }

        if (TSelf.CodeBits == 5) MemoryMarshal.Write(block[FifthBitOffset..], fifthBits);
    }

    private static void EncodeBatch<T>(ReadOnlySpan<float> values, int blockCount, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        ref float from = ref MemoryMarshal.GetReference(values);
        Span<float> scales = stackalloc float[Block32.Batch];
        Span<float> minima = stackalloc float[Block32.Batch];
        Span<float> inverses = stackalloc float[Block32.Batch];
        Span<ushort> halves = stackalloc ushort[Block32.Batch];
        Span<ushort> minimumHalves = stackalloc ushort[Block32.Batch];
        for (int b = 0; b < blockCount; b++)
        {
            if (TSelf.HasMinimum)
            {
                (minima[b], float high) = Block32.Range<T>(ref Unsafe.Add(ref from, b * 32));
                // A range of zeros of both signs is plus zero.
                scales[b] = ((high - minima[b]) + 0f) / (CodeCount - 1);
            }
            else
            {
                scales[b] = Block32.Extreme<T>(ref Unsafe.Add(ref from, b * 32)) / -Zero;
            }
        }

        Block32.Scale<T>(ref scales[0], ref inverses[0], ref halves[0]);
        if (TSelf.HasMinimum) HalfRows.Narrow(minima, minimumHalves);
        float rounding = TSelf.HasMinimum ? 0.5f : Zero + 0.5f;
        for (int b = 0; b < blockCount; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            Unsafe.WriteUnaligned(ref block, halves[b]);
            if (TSelf.HasMinimum) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 2), minimumHalves[b]);
            float shift = TSelf.HasMinimum ? minima[b] : 0;
            uint fifthBits = Block32.StoreCodes<T>(ref Unsafe.Add(ref from, b * 32), shift, inverses[b], rounding, CodeCount - 1, ref Unsafe.Add(ref block, NibbleOffset));
            if (TSelf.CodeBits == 5) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, FifthBitOffset), fifthBits);
        }
    }

    /// <summary>ggml's imatrix path: searched scales, rounded only where they are stored. Weights are <c>w * sqrt(variance of the row + x^2)</c>.</summary>
    private static void EncodeWeighted<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, int blockCount, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[32 * Search.Stride];
        Span<float> weights = stackalloc float[32 * Search.Stride];
        Search.Transpose(values, 32, lanes);
        Search.Transpose(importance, 32, weights);
        Span<float> parameters = stackalloc float[2 * Search.Stride];
        Span<byte> codes = stackalloc byte[32 * Search.Stride];
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            ref float x = ref lanes[g];
            ref float w = ref weights[g];
            for (int i = 0; i < 32; i++)
            {
                T value = Search.At<T>(ref x, i);
                T.Store(Search.At<T>(ref w, i) * T.Sqrt(T.Broadcast(rowVariance) + (value * value)), ref Unsafe.Add(ref w, i * Search.Stride));
            }

            (T scale, T minimum, T inverse, T anchor) = FindScales<T>(ref x, ref w);
            T.Store(scale, ref parameters[g]);
            T.Store(minimum, ref parameters[Search.Stride + g]);
            for (int i = 0; i < 32; i++)
            {
                T value = Search.At<T>(ref x, i);
                T code = TSelf.HasMinimum ? Search.AffineCodes(value, inverse, anchor, CodeCount - 1) : Search.SymmetricCodes(value, inverse, Zero);
                T.StoreBytes(code, ref codes[(i * Search.Stride) + g]);
            }
        }

        Span<byte> blockCodes = stackalloc byte[32];
        for (int b = 0; b < blockCount; b++)
        {
            for (int i = 0; i < 32; i++) blockCodes[i] = codes[(i * Search.Stride) + b];
            Span<byte> block = MemoryMarshal.CreateSpan(ref Unsafe.Add(ref blocks, b * BlockBytes), BlockBytes);
            PackBlock(blockCodes, [parameters[b], parameters[Search.Stride + b]], block);
        }
    }

    private static (T Scale, T Minimum, T Inverse, T Anchor) FindScales<T>(ref readonly float values, ref readonly float weights) where T : unmanaged, ILanes<T>
    {
        if (TSelf.HasMinimum) return Search.Affine<T>(in values, in weights, 32, CodeCount - 1);
        (T scale, T inverse) = Search.Symmetric<T>(in values, in weights, 32, Zero);
        return (scale, T.Broadcast(0), inverse, T.Broadcast(0));
    }
}
