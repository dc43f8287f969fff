using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q6_K</c>: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed sub-scales, half d; value <c>(d * scale) * (q - 32)</c>, 16 values a scale.</summary>
internal sealed class Q6_K : LaneCodecType<Q6_K>, ILaneEncoder, IBlockCodec
{
    private const int HighOffset = 128;
    private const int ScaleOffset = 192;
    private const int HalfOffset = 208;
    private const int SubBlocks = 16;
    private const int SubLength = 16;
    private const int Zero = 32;

    public static Q6_K Instance { get; } = new();

    public static int BlockValues => 256;
    public static int BlockBytes => 210;
    public static int BatchBlocks => 1;

    public override string Name => "Q6_K";

    /// <summary>The searched scale of the extreme's sub-block is at least 1/33 of it; the stored d is 1/128 of that scale.</summary>
    public override float LargestMagnitude => 65504f * 128 * 31;
    public override IBlockCodec Codec => this;

    public GridShape Shape => new(256, SubLength, 1, 64, 1 + SubBlocks);

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

    /// <summary>Weights of the search are x^2, or the importance itself, without ggml's usual square root.</summary>
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, int blockCount, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[256];
        Span<float> inverses = stackalloc float[SubBlocks];
        Span<float> parameters = stackalloc float[1 + SubBlocks];
        Span<byte> block = MemoryMarshal.CreateSpan(ref blocks, BlockBytes);
        if (!FindScales<T>(values, importance, lanes, inverses, parameters))
        {
            block.Clear();
            return;
        }

        Span<float> steps = stackalloc float[SubBlocks];
        for (int k = 0; k < SubBlocks; k++) steps[k] = parameters[0] * parameters[1 + k];
        Span<byte> codes = stackalloc byte[256];
        Span<byte> laneCodes = stackalloc byte[SubBlocks];
        for (int i = 0; i < SubLength; i++)
        {
            for (int g = 0; g < SubBlocks; g += T.Width)
            {
                T value = Search.At<T>(ref lanes[g], i);
                T step = T.Load(ref steps[g]);
                T rounded = LaneMath.RoundToEven(LaneMath.Clamp(value / step, -Zero, Zero - 1));
                T requantized = T.AddInt(T.ToInt(rounded), T.BroadcastInt(Zero));
                // Where the stored step is zero ggml keeps the codes of the search.
                T searched = Search.SymmetricCodes(value, T.Load(ref inverses[g]), Zero);
                T.StoreBytes(T.Select(T.Equal(step, T.Broadcast(0)), searched, requantized), ref laneCodes[g]);
            }

            for (int k = 0; k < SubBlocks; k++) codes[(k * SubLength) + i] = laneCodes[k];
        }

        Instance.Pack(codes, parameters, block);
    }

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Span<float> parameters)
    {
        Span<float> lanes = stackalloc float[256];
        Span<float> inverses = stackalloc float[SubBlocks];
        if (!FindScales<Lanes1>(block, importance, lanes, inverses, parameters)) parameters.Clear();
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0] * parameters[1 + subBlock], 64, Zero);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        for (int half = 0; half < 2; half++)
        {
            for (int l = 0; l < 32; l++)
            {
                ReadOnlySpan<byte> column = codes[((128 * half) + l)..];
                block[(64 * half) + l] = (byte)((column[0] & 15) | (column[64] << 4));
                block[(64 * half) + 32 + l] = (byte)((column[32] & 15) | (column[96] << 4));
                block[HighOffset + (32 * half) + l] = (byte)((column[0] >> 4) | (column[32] >> 4 << 2) | (column[64] >> 4 << 4) | (column[96] >> 4 << 6));
            }
        }

        for (int k = 0; k < SubBlocks; k++) block[ScaleOffset + k] = (byte)(sbyte)parameters[1 + k];
        MemoryMarshal.Write(block[HalfOffset..], (Half)parameters[0]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
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

    /// <summary>Searches the sub-blocks' scales and rounds them as they are stored. False when all are zero: the block is then all zero bytes.</summary>
    private static bool FindScales<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Span<float> lanes, Span<float> inverses, Span<float> parameters)
        where T : unmanaged, ILanes<T>
    {
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
            (T scale, T inverse) = Search.Symmetric<T>(ref lanes[g], ref weights[g], SubLength, Zero);
            T.Store(scale, ref scales[g]);
            T.Store(inverse, ref inverses[g]);
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
