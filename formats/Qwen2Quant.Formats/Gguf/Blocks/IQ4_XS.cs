using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq4_xs</c>: half d, 2 and 4 bytes of 6-bit scales, 128 of nibbles; value <c>(d * (scale - 32)) * table[q]</c>, 32 values a scale.</summary>
internal readonly struct IQ4_XS : ICodecFormat, IIntegerFormat
{
    private const int SubBlocks = Iq4Multiples.SubBlocks;

    public static string Name => "IQ4_XS";
    public static int BlockValues => 256;
    public static int BlockBytes => 136;
    public static int BatchBlocks => Search.Stride / SubBlocks;

    /// <summary>As that of <see cref="IQ4_NL"/>: d is 1/32 of the largest sub-block's scale.</summary>
    public static float LargestMagnitude => IQ4_NL.LargestMagnitude * 32;

    public static GridShape Shape => new(256, 32, 1, 16, 1 + SubBlocks);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 0);
        for (int k = 0; k < SubBlocks; k++)
        {
            NibbleTable.Decode<T>(ref ByteAt(in block, 8 + (16 * k)), in NibbleTable.Iq4[0], d * MultipleAt(in block, k), ref Unsafe.Add(ref values, 32 * k));
        }
    }

    public static bool HasOrigins => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride)
    {
        float d = HalfAt(in block, 0);
        for (int k = 0; k < SubBlocks; k++) Unsafe.Add(ref scales, k * stride) = d * MultipleAt(in block, k);
    }

    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins) => Shorts.UnpackedScales<IQ4_XS>(blocks, out origins);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run) => Shorts.Lookup(ref ByteAt(in block, 8 + (16 * run)), NibbleTable.Iq4Integers);

    /// <summary>ggml's codes are nearest under d before it is rounded.</summary>
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> multiples = stackalloc float[Search.Stride];
        Span<float> steps = stackalloc float[Search.Stride / SubBlocks];
        FindScales<T>(values, importance, effort, steps, multiples);
        for (int b = 0; b < values.Length / 256; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            StoreScales(steps[b], multiples.Slice(b * SubBlocks, SubBlocks), ref block);
            for (int k = 0; k < SubBlocks; k++)
            {
                float inverse = StoredHalf.Inverse(steps[b] * multiples[(b * SubBlocks) + k]);
                Iq4Search.StoreNibbles<T>(in values[(b * 256) + (k * 32)], inverse, ref Unsafe.Add(ref block, 8 + (16 * k)));
            }
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> multiples = stackalloc float[Search.Stride];
        Span<float> steps = stackalloc float[Search.Stride / SubBlocks];
        FindScales<Lanes1>(block, importance, effort, steps, multiples);
        parameters[0] = (float)(Half)steps[0];
        multiples[..SubBlocks].CopyTo(parameters[1..]);
    }

    public static float StoreParameter(int parameter, float value) => parameter == 0 ? StoredHalf.Round(value) : Parameters.Integer(value, -32, 31);

    public static (int First, int Count) SubBlocksOf(int parameter) => parameter == 0 ? Parameters.OfBlock : (parameter - 1, 1);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(0, parameters[0] * parameters[1 + subBlock], 16, 0, IQ4_NL.Table);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        StoreScales(parameters[0], parameters[1..], ref block[0]);
        for (int k = 0; k < SubBlocks; k++) NibbleTable.Pack(codes.Slice(32 * k, 32), block.Slice(8 + (16 * k), 16));
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], 0);
        for (int k = 0; k < SubBlocks; k++)
        {
            parameters[1 + k] = MultipleAt(in block[0], k);
            NibbleTable.Unpack(block.Slice(8 + (16 * k), 16), codes.Slice(32 * k, 32));
        }
    }

    /// <summary>What sub-block k multiplies d by, -32 to 31.</summary>
    private static int MultipleAt(ref readonly byte block, int k)
    {
        int low = (ByteAt(in block, 4 + (k >> 1)) >> (4 * (k & 1))) & 15;
        return (low | (((UShortAt(in block, 2) >> (2 * k)) & 3) << 4)) - 32;
    }

    private static void StoreScales(float step, ReadOnlySpan<float> multiples, ref byte block)
    {
        (int low, int high) = (0, 0);
        for (int k = 0; k < SubBlocks; k++)
        {
            int code = (int)multiples[k] + 32;
            low |= (code & 15) << (4 * k);
            high |= (code >> 4) << (2 * k);
        }

        Unsafe.WriteUnaligned(ref block, (Half)step);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 2), (ushort)high);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 4), low);
    }

    /// <summary>Unrounded d for the reference, stored ones for a search; and multiples of them.</summary>
    private static void FindScales<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<float> steps, Span<float> multiples)
        where T : unmanaged, ILanes<T>
    {
        int blockCount = values.Length / 256;
        Span<float> lanes = stackalloc float[Iq4Search.Length * Search.Stride];
        Span<float> weights = stackalloc float[Iq4Search.Length * Search.Stride];
        Span<float> scales = stackalloc float[Search.Stride];
        Iq4Search.Transpose<T>(values, importance, lanes, weights);
        if (effort == Effort.Reference)
        {
            Span<float> variances = stackalloc float[Search.Stride];
            for (int b = 0; b < blockCount; b++)
            {
                float sum = 0;
                foreach (float value in values.Slice(b * 256, 256)) sum += value * value;
                variances.Slice(b * SubBlocks, SubBlocks).Fill(sum * (2f / 256));
            }

            Iq4Search.ReferenceWeights<T>(lanes, variances, !importance.IsEmpty, weights);
            for (int g = 0; g < blockCount * SubBlocks; g += T.Width) Iq4Search.Reference<T>(in lanes[g], in weights[g], ref scales[g]);
            for (int b = 0; b < blockCount; b++) steps[b] = Iq4Multiples.Reference(scales.Slice(b * SubBlocks, SubBlocks), multiples.Slice(b * SubBlocks, SubBlocks));
            return;
        }

        Iq4Multiples.Search<T>(lanes, weights, blockCount, effort, steps, multiples);
    }
}
