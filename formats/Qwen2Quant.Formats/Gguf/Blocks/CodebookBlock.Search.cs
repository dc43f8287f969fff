using System.Numerics;
using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Search;

namespace Qwen2Quant.Formats.Gguf.Blocks;

// The search for the least sum of importance x squared error. For each sub-block, a lane, the whole codebook is tried under a range of steps; a parabola
// through the best three says what another step would cost, and by it many d are judged at once. The best of them are tried in earnest, each sub-block
// choosing among its nearest scales, or in haste the nearest. Values are scaled by a power of two, a block's unit, that keeps squares finite.
//
// The least squares d makes decoded values too small: their product with the values, sum w x q, falls short of sum w x^2 by the whole error, a tenth and more at
// two bits. Inputs of a real model are correlated, so that this common loss of gain does more harm than as much error at random. The stored d gives most of it back
// (Gain), which lowers the divergence of the model by a tenth to a third.
internal readonly partial struct CodebookBlock<TLayout>
{
    /// <summary>A block whose values are all smaller becomes zeros: half of the least step is more.</summary>
    private const float LeastMagnitude = 1e-9f;

    /// <summary>How many d are judged by parabolas, and the ratio of each to the next.</summary>
    private const int JudgedCount = 48;
    private const float JudgedRatio = 1.0125f;

    private const int ScaleCount = 16;

    [SkipLocalsInit]
    private static void EncodeSearched<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) where T : unmanaged, ILanes<T>
    {
        int blockCount = values.Length / 256;
        int laneValues = SubLength * Stride;
        Span<float> units = stackalloc float[blockCount];
        Span<float> x = stackalloc float[laneValues];
        Span<float> w = stackalloc float[laneValues];
        Span<float> products = stackalloc float[laneValues];
        Span<float> flips = stackalloc float[TLayout.HasEvenSigns ? laneValues / 8 : 0];
        Span<byte> signs = stackalloc byte[laneValues / 8];
        Span<bool> hasPivots = stackalloc bool[blockCount];
        LoadBlocks<T>(values, importance, units, x, w, signs, hasPivots);
        for (int i = 0; i < laneValues; i += T.Width) T.Store(T.Broadcast(-2) * Block32.At<T>(ref w[0], i) * LaneMath.Abs(Block32.At<T>(ref x[0], i)), ref products[i]);
        for (int i = 0; i < flips.Length; i++)
        {
            (int lane, int eight) = Math.DivRem(i, SubLength / 8);
            flips[(eight * Stride) + lane] = -2 * (BitOperations.PopCount((uint)signs[i]) & 1);
        }

        CodebookScan scan = new(TLayout.Codebook, products, w, flips);

        Span<float> centers = stackalloc float[Stride];
        Span<float> curvatures = stackalloc float[Stride];
        Span<float> squares = stackalloc float[Stride];
        FindCenters<T>(scan, x, w, effort, centers, curvatures, squares);
        Span<int> indices = stackalloc int[SubLength / TLayout.RowLength * Stride];
        Span<bool> isFlipped = stackalloc bool[indices.Length];

        int tried = effort == Effort.High ? JudgedCount : 1;
        Span<float> d = stackalloc float[tried * blockCount];
        Span<float> best = stackalloc float[blockCount];
        Span<float> codes = stackalloc float[Stride];
        Span<float> costs = stackalloc float[blockCount];
        Span<float> steps = stackalloc float[Stride];
        steps.Clear();
        codes.Clear();
        costs.Fill(float.PositiveInfinity);
        for (int b = 0; b < blockCount; b++) JudgeScales<T>(centers.Slice(b * TLayout.SubBlocks, TLayout.SubBlocks), curvatures[(b * TLayout.SubBlocks)..], units[b], d.Slice(b * tried, tried));
        int rounds = effort == Effort.High ? 6 : 1;
        for (int round = 0; round < rounds; round++)
        {
            // No parabola shows how near a step comes to one value that outweighs all others.
            if (effort != Effort.Fast || hasPivots.Contains(true)) TryScales<T>(scan, centers, units, d, best, codes, costs);
            if (effort == Effort.Fast) TakeNearest(centers, units, d, hasPivots, best, codes);
            for (int b = 0; b < blockCount; b++)
            {
                for (int k = 0; k < TLayout.SubBlocks; k++) steps[(b * TLayout.SubBlocks) + k] = TLayout.Step(best[b], (int)codes[(b * TLayout.SubBlocks) + k]) * units[b];
            }

            scan.Choose<T>(steps, indices, isFlipped);
            d = d[..blockCount];
            bool hasChanged = false;
            for (int b = 0; b < blockCount && round < rounds - 1; b++) hasChanged |= Refit(SumsOfBlock(products, w, b, indices, isFlipped, codes, units[b]), ref best[b], ref costs[b]);
            if (!hasChanged) break;
            best.CopyTo(d);
        }

        for (int b = 0; b < blockCount; b++) RestoreGain(SumsOfBlock(products, w, b, indices, isFlipped, codes, units[b]).Linear, squares.Slice(b * TLayout.SubBlocks, TLayout.SubBlocks), ref best[b]);
        Write(products, signs, indices, isFlipped, codes, best, blocks);
    }

    /// <summary>Values in units and weights of at most one, as lanes, and the signs of each eight; where all weights of a block are zero they count as one.</summary>
    /// <param name="hasPivots">Receives true where one weight is more than all others of its block together.</param>
    private static void LoadBlocks<T>(
        ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Span<float> units, Span<float> x, Span<float> w, Span<byte> signs, Span<bool> hasPivots)
        where T : unmanaged, ILanes<T>
    {
        Span<float> scaled = stackalloc float[values.Length];
        Span<float> weights = stackalloc float[values.Length];
        weights.Fill(1);
        signs.Clear();
        for (int b = 0; b < units.Length; b++)
        {
            T peaks = T.Broadcast(0), greatest = peaks;
            for (int i = 256 * b; i < 256 * (b + 1); i += T.Width)
            {
                peaks = T.Max(LaneMath.Abs(Block32.At<T>(in values[0], i)), peaks);
                if (!importance.IsEmpty) greatest = T.Max(Block32.At<T>(in importance[0], i), greatest);
            }

            (float peak, float most) = (T.MaxAcross(peaks), T.MaxAcross(greatest));
            units[b] = peak >= LeastMagnitude ? MathF.ScaleB(1, -Math.Min(MathF.ILogB(peak), 125)) : 0;
            (float sum0, float sum1, float sum2, float sum3) = (0, 0, 0, 0);
            for (int i = 256 * b; i < 256 * (b + 1) && most > 0; i += 4)
            {
                (sum0, sum1, sum2, sum3) = (sum0 + importance[i], sum1 + importance[i + 1], sum2 + importance[i + 2], sum3 + importance[i + 3]);
            }

            hasPivots[b] = 2 * most > (sum0 + sum1) + (sum2 + sum3);
            (T unit, T divisor) = (T.Broadcast(units[b]), T.Broadcast(most));
            for (int i = 256 * b; i < 256 * (b + 1); i += T.Width)
            {
                // Plus zero: a minus zero, or a value that becomes one, is not negative.
                T value = (Block32.At<T>(in values[0], i) * unit) + T.Broadcast(0);
                T.Store(value, ref scaled[i]);
                if (most > 0) T.Store(Block32.At<T>(in importance[0], i) / divisor, ref weights[i]);
                uint bits = T.TopBits(value);
                signs[i >> 3] |= (byte)(bits << (i & 7));
                if (T.Width == 16) signs[(i >> 3) + 1] = (byte)(bits >> 8);
            }
        }

        Transpose(scaled, SubLength, x);
        Transpose(weights, SubLength, w);
    }

    /// <summary>The d of one block that cost least by the parabolas, as halves, the best first.</summary>
    private static void JudgeScales<T>(ReadOnlySpan<float> centers, ReadOnlySpan<float> curvatures, float unit, Span<float> best) where T : unmanaged, ILanes<T>
    {
        Span<float> candidates = stackalloc float[JudgedCount];
        Span<float> costs = stackalloc float[JudgedCount];
        float peak = 0;
        foreach (float center in centers) peak = MathF.Max(peak, center);
        best.Clear();
        if (!(peak > 0)) return;
        (float first, float spacing) = (TLayout.Step(1, 0), TLayout.Step(1, 1) - TLayout.Step(1, 0));
        candidates[0] = 0.95f * peak / TLayout.Step(1, ScaleCount - 1);
        for (int n = 1; n < JudgedCount; n++) candidates[n] = candidates[n - 1] * JudgedRatio;
        for (int n = 0; n < JudgedCount; n += T.Width)
        {
            T d = Block32.At<T>(ref candidates[0], n);
            T cost = T.Broadcast(0);
            for (int k = 0; k < centers.Length; k++)
            {
                T scale = ((T.Broadcast(centers[k]) / d) - T.Broadcast(first)) / T.Broadcast(spacing);
                scale = LaneMath.RoundToEven(LaneMath.Clamp(scale, 0, ScaleCount - 1));
                T difference = (d * ((scale * T.Broadcast(spacing)) + T.Broadcast(first))) - T.Broadcast(centers[k]);
                cost += difference * difference * T.Broadcast(curvatures[k]);
            }

            T.Store(cost, ref costs[n]);
        }

        for (int found = 0; found < best.Length; found++)
        {
            int least = 0;
            for (int n = 1; n < JudgedCount; n++) least = costs[n] < costs[least] ? n : least;
            best[found] = MathF.Min((float)(Half)MathF.Min(candidates[least] / unit, 65504), 65504);
            costs[least] = float.PositiveInfinity;
        }
    }

    /// <summary>Takes for each sub-block of the blocks without a pivot the scale nearest to its center under the block's one d.</summary>
    private static void TakeNearest(ReadOnlySpan<float> centers, ReadOnlySpan<float> units, ReadOnlySpan<float> d, ReadOnlySpan<bool> hasPivots, Span<float> best, Span<float> codes)
    {
        d.CopyTo(best);
        for (int l = 0; l < TLayout.SubBlocks * units.Length; l++)
        {
            if (hasPivots[l / TLayout.SubBlocks]) continue;
            codes[l] = Math.Clamp((int)(ScaleOf(centers[l], d[l / TLayout.SubBlocks] * units[l / TLayout.SubBlocks]) + 0.5f), 0, ScaleCount - 1);
        }
    }

    /// <summary>The scale, not yet whole, that makes a step of d; 0 where d is 0.</summary>
    private static float ScaleOf(float step, float d) => d > 0 ? Math.Clamp(((step / d) - TLayout.Step(1, 0)) / (TLayout.Step(1, 1) - TLayout.Step(1, 0)), -1, ScaleCount) : 0;

    /// <summary>Tries several d for each block, each sub-block under the scales around its center, and keeps what costs less than before.</summary>
    /// <param name="d">The same number for each block.</param>
    [SkipLocalsInit]
    private static void TryScales<T>(in CodebookScan scan, ReadOnlySpan<float> centers, ReadOnlySpan<float> units, ReadOnlySpan<float> d, Span<float> best, Span<float> codes, Span<float> leastCosts)
        where T : unmanaged, ILanes<T>
    {
        const int width = 2 * CodebookScan.Quad;
        int tried = d.Length / units.Length;
        Span<float> steps = stackalloc float[tried * width * Stride];
        Span<float> costs = stackalloc float[tried * width * Stride];
        Span<byte> firstCodes = stackalloc byte[tried * Stride];
        steps.Clear();
        for (int n = 0; n < tried; n++)
        {
            for (int l = 0; l < TLayout.SubBlocks * units.Length; l++)
            {
                (float candidate, float unit) = (d[(l / TLayout.SubBlocks * tried) + n], units[l / TLayout.SubBlocks]);
                int below = (int)ScaleOf(centers[l], candidate * unit);
                int code = firstCodes[(n * Stride) + l] = (byte)Math.Clamp(below + 1 - (width / 2), 0, ScaleCount - width);
                for (int k = 0; k < width; k++) steps[(((n * width) + k) * Stride) + l] = TLayout.Step(candidate, code + k) * unit;
            }
        }

        scan.Costs<T>(steps, costs);
        Span<float> found = stackalloc float[Stride];
        for (int i = 0; i < tried * units.Length; i++)
        {
            (int n, int b) = (i % tried, i / tried);
            float total = 0;
            for (int l = b * TLayout.SubBlocks; l < (b + 1) * TLayout.SubBlocks; l++)
            {
                int least = 0;
                for (int k = 1; k < width; k++) least = costs[(((n * width) + k) * Stride) + l] < costs[(((n * width) + least) * Stride) + l] ? k : least;
                found[l] = firstCodes[(n * Stride) + l] + least;
                total += costs[(((n * width) + least) * Stride) + l];
            }

            if (!(total < leastCosts[b])) continue;
            (leastCosts[b], best[b]) = (total, d[i]);
            found.Slice(b * TLayout.SubBlocks, TLayout.SubBlocks).CopyTo(codes[(b * TLayout.SubBlocks)..]);
        }
    }

    /// <summary>The least squares d of one block under the chosen rows and scales. False when the half d stays.</summary>
    private static bool Refit((double Linear, double Square) sums, ref float d, ref float cost)
    {
        (double linear, double square) = sums;
        if (!(square > 0)) return false;
        float fitted = (float)(Half)Math.Clamp(-linear / (2 * square), 0, 65504);
        double fittedCost = fitted * ((fitted * square) + linear);
        if (fitted == d || !(fittedCost < d * ((d * square) + linear))) return false;
        (d, cost) = (fitted, (float)fittedCost);
        return true;
    }

    /// <summary>Enlarges the half d of one block by what its codes lose in <see cref="Gain"/>.</summary>
    private static void RestoreGain(double linear, ReadOnlySpan<float> squares, ref float d)
    {
        double square = 0;
        foreach (float part in squares) square += part;
        if (linear < 0) d = (float)(Half)Math.Min(d + (Gain.Restored * ((-2 * square / linear) - d)), 65504);
    }

    /// <summary>What one block with the chosen rows and scales costs under d: <c>d (d square + linear)</c>, but for a constant.</summary>
    private static (double Linear, double Square) SumsOfBlock(ReadOnlySpan<float> products, ReadOnlySpan<float> w, int block, ReadOnlySpan<int> indices, ReadOnlySpan<bool> isFlipped, ReadOnlySpan<float> codes, float unit)
    {
        (double linear, double square) = (0, 0);
        for (int l = block * TLayout.SubBlocks; l < (block + 1) * TLayout.SubBlocks; l++)
        {
            (float a, float b) = Sums(products, w, l, indices, isFlipped);
            double step = TLayout.Step(1, (int)codes[l]) * unit;
            linear += step * a;
            square += step * step * b;
        }

        return (linear, square);
    }

    /// <summary>What a sub-block with the chosen rows costs under a step s: <c>s (s square + linear)</c>, but for a constant.</summary>
    private static (float Linear, float Square) Sums(ReadOnlySpan<float> products, ReadOnlySpan<float> w, int lane, ReadOnlySpan<int> indices, ReadOnlySpan<bool> isFlipped)
    {
        (float a, float b) = (0, 0);
        for (int r = lane; r < indices.Length; r += Stride)
        {
            ReadOnlySpan<float> row = TLayout.Codebook.Rows.Slice(indices[r] * TLayout.RowLength, TLayout.RowLength);
            int at = ((r & ~(Stride - 1)) * TLayout.RowLength) + lane;
            float greatest = float.NegativeInfinity;
            for (int j = 0; j < row.Length; j++, at += Stride)
            {
                float product = products[at] * row[j];
                a += product;
                b += w[at] * row[j] * row[j];
                greatest = MathF.Max(greatest, product);
            }

            if (isFlipped[r]) a -= 2 * greatest;
        }

        return (a, b);
    }

    private static void Write(ReadOnlySpan<float> products, ReadOnlySpan<byte> signs, ReadOnlySpan<int> indices, ReadOnlySpan<bool> isFlipped, ReadOnlySpan<float> scales, ReadOnlySpan<float> d, Span<byte> blocks)
    {
        CodebookCodes codes = new(stackalloc ushort[Rows], stackalloc byte[32], stackalloc byte[TLayout.SubBlocks]);
        int rowsPerLane = SubLength / TLayout.RowLength;
        for (int b = 0; b < d.Length; b++)
        {
            signs.Slice(32 * b, 32).CopyTo(codes.Signs);
            for (int row = 0; row < Rows; row++)
            {
                int lane = (b * TLayout.SubBlocks) + (row / rowsPerLane);
                int r = (row % rowsPerLane * Stride) + lane;
                codes.Indices[row] = (ushort)indices[r];
                if (!isFlipped[r]) continue;
                ReadOnlySpan<float> levels = TLayout.Codebook.Rows.Slice(indices[r] * TLayout.RowLength, TLayout.RowLength);
                int first = ((r & ~(Stride - 1)) * TLayout.RowLength) + lane;
                int wrong = 0;
                for (int j = 1; j < levels.Length; j++)
                {
                    if (products[first + (j * Stride)] * levels[j] > products[first + (wrong * Stride)] * levels[wrong]) wrong = j;
                }

                codes.Signs[row * TLayout.RowLength / 8] ^= (byte)(1 << ((row * TLayout.RowLength % 8) + wrong));
            }

            for (int k = 0; k < TLayout.SubBlocks; k++) codes.Scales[k] = (byte)scales[(b * TLayout.SubBlocks) + k];
            Store(d[b], codes, blocks.Slice(b * BlockBytes, BlockBytes));
        }
    }
}
