using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct AffineBlock<TFormat>
{
    /// <summary>ggml's <c>quantize_row_q2_K</c>, <c>q4_K</c> and <c>q5_K</c>, with and without importance.</summary>
    /// <param name="weights">The importance as lanes; overwritten.</param>
    private static void EncodeReference<T>(ReadOnlySpan<float> values, bool hasImportance, Span<float> lanes, Span<float> weights, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> scales = stackalloc float[Search.Stride];
        Span<float> minima = stackalloc float[Search.Stride];
        Span<float> inverses = stackalloc float[Search.Stride];
        Span<float> anchors = stackalloc float[Search.Stride];
        Span<float> weightSums = stackalloc float[Search.Stride];
        Span<float> variances = stackalloc float[Search.Stride];
        if (hasImportance) BlockVariances(values, variances);
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            if (hasImportance) WeighImportance<T>(in lanes[g], Block32.At<T>(ref variances[0], g), ref weights[g], ref weightSums[g]);
            else WeighMagnitudes<T>(in lanes[g], ref weights[g]);
            AffineTries tries = hasImportance ? AffineTries.Weighted : TFormat.Tries;
            AffineReference.Find<T>(in lanes[g], in weights[g], TFormat.SubLength, TFormat.CodeLimit, tries, ref scales[g], ref minima[g], ref inverses[g], ref anchors[g]);
        }

        Span<float> parameters = stackalloc float[2 + (2 * SubBlocks)];
        Span<float> offsets = stackalloc float[SubBlocks];
        Span<byte> codes = stackalloc byte[256];
        for (int b = 0; b < values.Length / 256; b++)
        {
            int first = b * SubBlocks;
            for (int k = 0; k < SubBlocks; k++) offsets[k] = -minima[first + k];
            ReadOnlySpan<float> sums = hasImportance ? weightSums.Slice(first, SubBlocks) : [];
            parameters[0] = RoundScales(scales.Slice(first, SubBlocks), sums, parameters.Slice(2, SubBlocks));
            parameters[1] = RoundScales(offsets, sums, parameters.Slice(2 + SubBlocks, SubBlocks));
            for (int k = 0; k < SubBlocks; k++)
            {
                ref float from = ref Unsafe.Add(ref MemoryMarshal.GetReference(values), (b * 256) + (k * TFormat.SubLength));
                float step = parameters[0] * parameters[2 + k];
                T offset = T.Broadcast(parameters[1] * parameters[2 + SubBlocks + k]);
                (T inverse, T anchor) = (T.Broadcast(inverses[first + k]), T.Broadcast(anchors[first + k]));
                for (int l = 0; l < TFormat.SubLength; l += T.Width)
                {
                    T value = Block32.At<T>(ref from, l);
                    // Where the stored step is zero ggml keeps the codes of the search.
                    T code = step == 0
                        ? AffineReference.Codes(value, inverse, anchor, TFormat.CodeLimit)
                        : T.ToInt(LaneMath.RoundToEven(LaneMath.Clamp((value + offset) / T.Broadcast(step), 0, TFormat.CodeLimit)));
                    T.StoreBytes(code, ref codes[(k * TFormat.SubLength) + l]);
                }
            }

            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            PackParameters(parameters, MemoryMarshal.CreateSpan(ref block, BlockBytes));
            TFormat.PackCodes<T>(in codes[0], ref block);
        }
    }

    /// <summary>Integer codes of scales and the half that they are multiples of. <paramref name="weights"/> is empty without importance.</summary>
    private static float RoundScales(ReadOnlySpan<float> scales, ReadOnlySpan<float> weights, Span<float> codes)
    {
        float unit;
        if (weights.IsEmpty)
        {
            float peak = 0;
            foreach (float scale in scales) peak = MathF.Max(peak, scale);
            float inverse = peak > 0 ? TFormat.ScaleLimit / peak : 0;
            for (int k = 0; k < scales.Length; k++) codes[k] = MathF.Round(inverse * scales[k], MidpointRounding.ToEven);
            unit = peak / TFormat.ScaleLimit;
        }
        else
        {
            unit = AffineReference.Positive(scales, weights, TFormat.ScaleLimit, codes);
        }

        for (int k = 0; k < codes.Length; k++) codes[k] = (int)MathF.Min(MathF.Max(codes[k], 0), TFormat.ScaleLimit);
        return (float)(Half)unit;
    }

    /// <summary>Mean squares of blocks, twice that of the 6-bit types, in every lane of the block: one sum in index order.</summary>
    private static void BlockVariances(ReadOnlySpan<float> values, Span<float> variances)
    {
        for (int b = 0; b < values.Length / 256; b++)
        {
            float sum = 0;
            foreach (float value in values.Slice(b * 256, 256)) sum += value * value;
            variances.Slice(b * SubBlocks, SubBlocks).Fill((TFormat.ScaleLimit == 63 ? 2 * sum : sum) / 256);
        }
    }

    private static void WeighImportance<T>(ref readonly float lanes, T variance, ref float weights, ref float weightSums) where T : unmanaged, ILanes<T>
    {
        T sum = T.Broadcast(0);
        for (int i = 0; i < TFormat.SubLength; i++)
        {
            T value = Search.At<T>(in lanes, i);
            T weight = Search.At<T>(in weights, i) * T.Sqrt(variance + (value * value));
            T.Store(weight, ref Unsafe.Add(ref weights, i * Search.Stride));
            sum += weight;
        }

        T.Store(sum, ref weightSums);
    }

    /// <summary>Magnitudes, and for the 6-bit types the root mean square of the sub-block added to them.</summary>
    private static void WeighMagnitudes<T>(ref readonly float lanes, ref float weights) where T : unmanaged, ILanes<T>
    {
        T sum = T.Broadcast(0);
        for (int i = 0; i < TFormat.SubLength && TFormat.ScaleLimit == 63; i++)
        {
            T value = Search.At<T>(in lanes, i);
            sum += value * value;
        }

        T root = T.Sqrt(sum / T.Broadcast(TFormat.SubLength));
        for (int i = 0; i < TFormat.SubLength; i++) T.Store(root + LaneMath.Abs(Search.At<T>(in lanes, i)), ref Unsafe.Add(ref weights, i * Search.Stride));
    }
}
