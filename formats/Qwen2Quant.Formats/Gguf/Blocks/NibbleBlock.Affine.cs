using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct NibbleBlock<TFormat>
{
    /// <summary>A searched step and minimum for each block, rounded to halves, and the codes nearest under those.</summary>
    [SkipLocalsInit]
    private static void SearchAffine<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        if (effort == Effort.Fast && importance.IsEmpty)
        {
            // ggml does not search here either, and any search takes longer than reading and writing the values.
            EncodeBatch<T>(values, ref blocks);
            return;
        }

        AffineStart start = (effort, importance.IsEmpty) switch
        {
            (Effort.Normal, true) => new(4, 1, 0),
            (Effort.Fast, false) => new(8, 3, 1),
            (Effort.Normal, false) => new(24, 3, 2),
            (_, true) => new(48, 5, 3),
            _ => new(64, 7, 3),
        };
        Span<float> lanes = stackalloc float[32 * Search.Stride];
        Span<float> weights = stackalloc float[32 * Search.Stride];
        Search.Transpose(values, 32, lanes);
        if (importance.IsEmpty) weights.Fill(1);
        else Search.Transpose(importance, 32, weights);
        Span<float> offsets = stackalloc float[Search.Stride];
        Span<float> inverses = stackalloc float[Search.Stride];
        Span<ushort> steps = stackalloc ushort[Search.Stride];
        Span<ushort> minima = stackalloc ushort[Search.Stride];
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            AffineSearch.Totals<T> totals = AffineSearch.Sum<T>(in lanes[g], in weights[g], 32, isFree: true);
            (T step, T offset) = AffineSearch.Start(in lanes[g], in weights[g], 32, CodeCount - 1, true, in totals, start);
            T half = HalfRows.ToHalfBits(step);
            T.StoreUShorts(half, ref steps[g]);
            step = HalfRows.FromHalfBits(half);
            T.Store(LaneMath.FiniteInverse(step), ref inverses[g]);
            if (!importance.IsEmpty) offset = AffineSearch.Offset(in lanes[g], in weights[g], 32, CodeCount - 1, in totals, step, offset);
            half = HalfRows.ToHalfBits(LaneMath.Negate(offset));
            T.StoreUShorts(half, ref minima[g]);
            T.Store(LaneMath.Negate(HalfRows.FromHalfBits(half)), ref offsets[g]);
        }

        StoreNearest<T>(in MemoryMarshal.GetReference(values), values.Length / 32, inverses, offsets, steps, minima, ref blocks);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void StoreNearest<T>(
        ref readonly float from, int blockCount, ReadOnlySpan<float> inverses, ReadOnlySpan<float> offsets, ReadOnlySpan<ushort> steps, ReadOnlySpan<ushort> minima, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        for (int b = 0; b < blockCount; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            (T offset, T inverse) = (T.Broadcast(offsets[b]), T.Broadcast(inverses[b]));
            uint fifthBits = 0;
            for (int j = 0; j < 16; j += T.Width)
            {
                T low = T.ToInt(AffineSearch.Round((Block32.At<T>(in from, (b * 32) + j) + offset) * inverse, CodeCount - 1));
                T high = T.ToInt(AffineSearch.Round((Block32.At<T>(in from, (b * 32) + j + 16) + offset) * inverse, CodeCount - 1));
                fifthBits |= Block32.StoreNibbles(low, high, j, ref Unsafe.Add(ref block, NibbleOffset));
            }

            Unsafe.WriteUnaligned(ref block, steps[b]);
            Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, 2), minima[b]);
            if (TFormat.CodeBits == 5) Unsafe.WriteUnaligned(ref Unsafe.Add(ref block, FifthBitOffset), fifthBits);
        }
    }
}
