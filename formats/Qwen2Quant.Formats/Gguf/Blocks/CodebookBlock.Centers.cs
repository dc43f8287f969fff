using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Search;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct CodebookBlock<TLayout>
{
    /// <summary>The four steps that the fast effort tries, in units of the best one without a codebook: of several starts and ratios these lost least over all types.</summary>
    private const float FastStart = 0.9f;
    private const float FastRatio = 1.15f;

    /// <summary>The step of each sub-block that a parabola through the costs of tried ones takes for the best, its curvature, and its <c>sum w x^2</c>.</summary>
    private static void FindCenters<T>(in CodebookScan scan, ReadOnlySpan<float> x, ReadOnlySpan<float> w, Effort effort, Span<float> centers, Span<float> curvatures, Span<float> squares)
        where T : unmanaged, ILanes<T>
    {
        int count = effort switch { Effort.Fast => 4, Effort.Normal => 8, _ => 16 };
        Span<float> steps = stackalloc float[count * Stride];
        Span<float> costs = stackalloc float[count * Stride];
        for (int g = 0; g < Stride; g += T.Width)
        {
            T square = T.Broadcast(0), sum = square, peak = square;
            for (int i = g; i < x.Length; i += Stride)
            {
                T value = Block32.At<T>(in x[0], i), weight = Block32.At<T>(in w[0], i);
                square += value * value * weight;
                sum += weight;
                peak = T.Max(LaneMath.Abs(value), peak);
            }

            // The best step of a sub-block without an outlier is near that of a normal distribution; an outlier may pull it up until it has the greatest level.
            T.Store(square, ref squares[g]);
            T typical = T.Sqrt(square / sum) * T.Broadcast(1 / TLayout.TypicalLevel);
            T step = typical * T.Broadcast(0.72f);
            T last = T.Max(peak * T.Broadcast(1.05f / TLayout.Codebook.Levels[^1]), typical * T.Broadcast(1.35f));
            T ratio = T.Sqrt(T.Sqrt(T.Sqrt(last / step)));
            if (effort == Effort.Fast)
            {
                step = Relaxed(in x[g], in w[g], step, ratio) * T.Broadcast(FastStart);
                ratio = T.Broadcast(FastRatio);
            }
            else if (effort == Effort.High)
            {
                ratio = T.Sqrt(ratio);
            }

            for (int k = 0; k < count; k++, step *= ratio) T.Store(step, ref steps[(k * Stride) + g]);
        }

        scan.Costs<T>(steps, costs);
        for (int l = 0; l < Stride; l++)
        {
            int least = 0;
            for (int k = 1; k < count; k++) least = costs[(k * Stride) + l] < costs[(least * Stride) + l] ? k : least;
            int at = (least * Stride) + l;
            (centers[l], curvatures[l]) = (steps[at], -costs[at] / (steps[at] * steps[at]));
            if (least > 0 && least < count - 1)
            {
                (float s0, float s1, float s2) = (steps[at - Stride], steps[at], steps[at + Stride]);
                float before = (costs[at] - costs[at - Stride]) / (s1 - s0);
                float curvature = (((costs[at + Stride] - costs[at]) / (s2 - s1)) - before) / (s2 - s0);
                if (curvature > 0) (centers[l], curvatures[l]) = (Math.Clamp(((s0 + s1) / 2) - (before / (2 * curvature)), s0, s2), curvature);
            }

            if (!float.IsFinite(centers[l]) || !float.IsFinite(curvatures[l])) (centers[l], curvatures[l]) = (0, 0);
        }
    }

    /// <summary>
    /// The best step of the values' magnitudes if every row of levels were in the codebook and the levels evenly spaced: of eight steps, each <paramref name="ratio"/> times
    /// the one before, that under whose levels the least squares step explains most.
    /// </summary>
    private static T Relaxed<T>(ref readonly float x, ref readonly float w, T step, T ratio) where T : unmanaged, ILanes<T>
    {
        ReadOnlySpan<float> levels = TLayout.Codebook.Levels;
        (float least, float spacing) = (levels[0], (levels[^1] - levels[0]) / (levels.Length - 1));
        T rounding = T.Broadcast(SymmetricSearch.Rounding), most = T.Broadcast(SymmetricSearch.Rounding + levels.Length - 1);
        T shift = T.Broadcast(SymmetricSearch.Rounding - (least / spacing));
        T best = T.Broadcast(-1), fitted = step;
        for (int k = 0; k < 8; k++, step *= ratio)
        {
            T inverse = T.Broadcast(1) / (step * T.Broadcast(spacing));
            T sumA = T.Broadcast(0), sumB = sumA;
            for (int i = 0; i < SubLength; i++)
            {
                T magnitude = LaneMath.Abs(At<T>(in x, i));
                T code = T.Max(T.Min(T.MultiplyAdd(magnitude, inverse, shift), most), rounding) - rounding;
                T level = T.MultiplyAdd(code, T.Broadcast(spacing), T.Broadcast(least));
                T weighted = At<T>(in w, i) * level;
                sumA = T.MultiplyAdd(weighted, magnitude, sumA);
                sumB = T.MultiplyAdd(weighted, level, sumB);
            }

            T trial = sumA / sumB;
            T isBetter = T.Greater(trial * sumA, best);
            best = T.Select(isBetter, trial * sumA, best);
            fitted = T.Select(isBetter, trial, fitted);
        }

        return fitted;
    }
}
