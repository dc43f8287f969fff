using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>IQ4_XS's step d and the integers of -32 to 31 by which its sub-blocks multiply it.</summary>
internal static class Iq4Multiples
{
    public const int SubBlocks = 8;

    private const int Low = -32;
    private const int High = 31;

    /// <summary>Multiples, with fractions, that the scale of largest magnitude is tried on. Their order decides between equals.</summary>
    private static readonly float[] Anchors = [.. Enumerable.Range(0, 64).Select(k => -32.25f + (0.25f * k))];

    /// <summary>ggml's choice: the largest scale becomes -32.</summary>
    /// <returns>d, not yet rounded.</returns>
    public static float Reference(ReadOnlySpan<float> scales, Span<float> multiples)
    {
        float step = -Largest(scales) / 32;
        float inverse = step == 0 ? 0 : 1 / step;
        for (int k = 0; k < SubBlocks; k++) multiples[k] = Math.Clamp(MathF.Round(inverse * scales[k], MidpointRounding.ToEven), Low, High);
        return step;
    }

    /// <summary>
    /// The least weighted error of at most two blocks whose sub-blocks are lanes. Steps are ranked by what they cost if an error of a scale costs its curvature
    /// times its square; of the first few the neighbouring multiples are tried in earnest, and the step is fitted again to the codes they give.
    /// </summary>
    /// <param name="steps">Receives d of each block as a half holds it.</param>
    public static void Search<T>(ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, int blockCount, Effort effort, Span<float> steps, Span<float> multiples)
        where T : unmanaged, ILanes<T>
    {
        const int stride = Blocks.Search.Stride;
        Span<float> scales = stackalloc float[stride];
        Span<float> curvatures = stackalloc float[stride];
        for (int g = 0; g < blockCount * SubBlocks; g += T.Width) Iq4Search.Scales<T>(in lanes[g], in weights[g], effort, ref scales[g], ref curvatures[g]);
        (int ranks, int rounds) = effort switch { Effort.Fast => (1, 0), Effort.Normal => (3, 1), _ => (16, 3) };
        Span<float> ranked = stackalloc float[2 * 16];
        for (int b = 0; b < blockCount; b++)
        {
            Rank<T>(scales.Slice(b * SubBlocks, SubBlocks), curvatures.Slice(b * SubBlocks, SubBlocks), ranked.Slice(b * 16, ranks));
        }

        if (rounds == 0)
        {
            for (int b = 0; b < blockCount; b++) steps[b] = Multiply(scales.Slice(b * SubBlocks, SubBlocks), ranked[b * 16], multiples.Slice(b * SubBlocks, SubBlocks));
            return;
        }

        Span<float> best = stackalloc float[2];
        Span<float> trialSteps = stackalloc float[2];
        Span<float> trial = stackalloc float[stride];
        best.Fill(float.NegativeInfinity);
        for (int rank = 0; rank < ranks; rank++)
        {
            for (int b = 0; b < blockCount; b++) trialSteps[b] = ranked[(b * 16) + rank];
            Improve<T>(lanes, weights, scales, blockCount, rounds, trialSteps, best, steps, multiples);
        }
    }

    /// <summary>Tries the multiples on both sides of each quotient, fits the step to the better ones' codes, and keeps what is best so far.</summary>
    private static void Improve<T>(
        ReadOnlySpan<float> lanes, ReadOnlySpan<float> weights, ReadOnlySpan<float> scales, int blockCount, int rounds,
        Span<float> trialSteps, Span<float> best, Span<float> steps, Span<float> multiples) where T : unmanaged, ILanes<T>
    {
        const int stride = Blocks.Search.Stride;
        int count = blockCount * SubBlocks;
        Span<float> chosen = stackalloc float[stride];
        Span<float> tried = stackalloc float[stride];
        Span<float> products = stackalloc float[stride];
        Span<float> gains = stackalloc float[stride];
        Span<float> sumsQx = stackalloc float[stride];
        Span<float> sumsQ2 = stackalloc float[stride];
        Span<float> chosenGains = stackalloc float[stride];
        Span<float> chosenQx = stackalloc float[stride];
        Span<float> chosenQ2 = stackalloc float[stride];
        for (int round = 0; round <= rounds; round++)
        {
            for (int side = 0; side < 2; side++)
            {
                for (int g = 0; g < count; g++)
                {
                    float step = trialSteps[g / SubBlocks];
                    float low = step == 0 ? 0 : MathF.Floor(Math.Clamp(scales[g] / step, Low, High));
                    tried[g] = MathF.Min(low + side, High);
                    products[g] = step * tried[g];
                }

                for (int g = 0; g < count; g += T.Width) Iq4Search.Gains<T>(in lanes[g], in weights[g], in products[g], ref gains[g], ref sumsQx[g], ref sumsQ2[g]);
                for (int g = 0; g < count; g++)
                {
                    if (side == 1 && !(gains[g] > chosenGains[g])) continue;
                    (chosen[g], chosenGains[g], chosenQx[g], chosenQ2[g]) = (tried[g], gains[g], sumsQx[g], sumsQ2[g]);
                }
            }

            for (int b = 0; b < blockCount; b++)
            {
                (float gain, float sumLx, float sumL2) = (0, 0, 0);
                for (int g = b * SubBlocks; g < (b + 1) * SubBlocks; g++)
                {
                    gain += chosenGains[g];
                    sumLx += chosen[g] * chosenQx[g];
                    sumL2 += chosen[g] * chosen[g] * chosenQ2[g];
                }

                if (gain > best[b])
                {
                    (best[b], steps[b]) = (gain, trialSteps[b]);
                    chosen.Slice(b * SubBlocks, SubBlocks).CopyTo(multiples[(b * SubBlocks)..]);
                }

                if (sumL2 > 0) trialSteps[b] = StoredHalf.Round(sumLx / sumL2);
            }
        }
    }

    /// <summary>The steps, as halves, of least estimated cost; lanes are steps.</summary>
    private static void Rank<T>(ReadOnlySpan<float> scales, ReadOnlySpan<float> curvatures, Span<float> ranked) where T : unmanaged, ILanes<T>
    {
        Span<float> steps = stackalloc float[Anchors.Length];
        Span<float> costs = stackalloc float[Anchors.Length];
        T largest = T.Broadcast(Largest(scales));
        for (int i = 0; i < Anchors.Length; i += T.Width)
        {
            T step = largest / Block32.At<T>(in Anchors[0], i);
            T cost = Cost(scales, curvatures, step, out T fitted);
            T fittedCost = Cost(scales, curvatures, fitted, out _);
            T better = T.Greater(cost, fittedCost);
            T.Store(StoredHalf.Round(T.Select(better, fitted, step)), ref steps[i]);
            T.Store(T.Select(better, fittedCost, cost), ref costs[i]);
        }

        for (int rank = 0; rank < ranked.Length; rank++)
        {
            int least = 0;
            for (int i = 1; i < costs.Length; i++)
            {
                if (costs[i] < costs[least]) least = i;
            }

            ranked[rank] = steps[least];
            for (int i = 0; i < costs.Length; i++)
            {
                if (steps[i] == ranked[rank]) costs[i] = float.PositiveInfinity;
            }
        }
    }

    /// <summary>Sum of curvature x (scale - multiple x step)^2, and the step that is best for these multiples.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Cost<T>(ReadOnlySpan<float> scales, ReadOnlySpan<float> curvatures, T step, out T fitted) where T : unmanaged, ILanes<T>
    {
        T inverse = LaneMath.FiniteInverse(step);
        T cost = T.Broadcast(0), sumLx = cost, sumL2 = cost;
        for (int k = 0; k < SubBlocks; k++)
        {
            T scale = T.Broadcast(scales[k]);
            T multiple = LaneMath.RoundToEven(LaneMath.Clamp(scale * inverse, Low, High));
            T weighted = T.Broadcast(curvatures[k]) * multiple;
            T difference = scale - (multiple * step);
            cost = T.MultiplyAdd(T.Broadcast(curvatures[k]) * difference, difference, cost);
            sumLx = T.MultiplyAdd(weighted, scale, sumLx);
            sumL2 = T.MultiplyAdd(weighted, multiple, sumL2);
        }

        fitted = T.Select(T.Greater(sumL2, T.Broadcast(0)), sumLx / sumL2, step);
        return cost;
    }

    private static float Multiply(ReadOnlySpan<float> scales, float step, Span<float> multiples)
    {
        for (int k = 0; k < SubBlocks; k++) multiples[k] = step == 0 ? 0 : MathF.Round(Math.Clamp(scales[k] / step, Low, High), MidpointRounding.ToEven);
        return step;
    }

    private static float Largest(ReadOnlySpan<float> scales)
    {
        float largest = 0;
        foreach (float scale in scales)
        {
            if (MathF.Abs(scale) > MathF.Abs(largest)) largest = scale;
        }

        return largest;
    }
}
