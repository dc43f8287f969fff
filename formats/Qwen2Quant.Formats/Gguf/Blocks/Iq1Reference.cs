using static Qwen2Quant.Formats.Gguf.Blocks.Iq1Grid;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// ggml's encoders of IQ1_S and IQ1_M. A group's values are sorted; every split into -1, 0, +1 under every choice of deltas is scored by the weighted
/// error under its best scale; granules off the codebook then take a neighbour, and the scale is fitted again. All sums are floats in ggml's order.
/// </summary>
internal static class Iq1Reference
{
    private const float Delta = Codebooks.Iq1Delta;

    /// <summary>Encodes one block as <typeparamref name="TLayout"/>; the search leaves an unrounded scale for each group, of which the largest becomes 15 steps.</summary>
    public static void Find<TLayout>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, ref Iq1Fields fields) where TLayout : struct, IIq1Layout
    {
        Span<float> weights = stackalloc float[256];
        Weigh(values, importance, weights);
        int groupLength = 256 / TLayout.Groups;
        Span<float> scales = stackalloc float[TLayout.Groups];
        fields.Rows.Clear();
        fields.HasMinus.Clear();
        fields.Multiples.Fill(1);
        fields.D = 0;
        float largest = 0;
        for (int b = 0; b < scales.Length; b++)
        {
            ReadOnlySpan<float> x = values.Slice(b * groupLength, groupLength), w = weights.Slice(b * groupLength, groupLength);
            scales[b] = TLayout.DeltaGranules == 1 ? FindM(x, w, fields, b) : FindS(x, w, fields, b);
            largest = largest > scales[b] ? largest : scales[b];
        }

        if (largest == 0)
        {
            fields.HasMinus.Clear();
            return;
        }

        float d = largest / 15;
        float inverse = 1 / d;
        for (int b = 0; b < scales.Length; b++)
        {
            float half = 0.5f * ((inverse * scales[b]) - 1);
            if (half is > 0 and < 4194304) fields.Multiples[b] = (2 * Math.Min(7, (int)MathF.Round(half, MidpointRounding.ToEven))) + 1;
        }

        if (TLayout.DeltaGranules != 1)
        {
            fields.D = (float)(Half)(d * 1.125f);
            return;
        }

        float sumQx = 0, sumQ2 = 0;
        for (int b = 0; b < scales.Length; b++)
        {
            AddSums(values.Slice(b * groupLength, groupLength), weights.Slice(b * groupLength, groupLength), fields, b * groupLength / RowLength, fields.Multiples[b], ref sumQx, ref sumQ2);
        }

        if (sumQ2 > 0) d = sumQx / sumQ2;
        fields.D = (float)(Half)(d * 1.1125f);
    }

    /// <summary>A group of IQ1_S: 32 values under one delta. Returns its scale, 0 where there is none.</summary>
    private static float FindS(ReadOnlySpan<float> x, ReadOnlySpan<float> w, Iq1Fields fields, int group)
    {
        const int Length = 32;
        Span<byte> order = stackalloc byte[Length];
        if (!Sort(x, 1e-12f, order)) return 0;
        Span<float> sumsX = stackalloc float[Length + 1];
        Span<float> sumsW = stackalloc float[Length + 1];
        (sumsX[0], sumsW[0]) = (0, 0);
        for (int j = 0; j < Length; j++)
        {
            int i = order[j];
            sumsX[j + 1] = sumsX[j] + (w[i] * x[i]);
            sumsW[j + 1] = sumsW[j] + w[i];
        }

        Split best = Split.None;
        for (int first = 0; first <= Length; first++)
        {
            for (int second = first; second <= Length; second++)
            {
                (float x0, float x1, float x2) = (sumsX[first], sumsX[second] - sumsX[first], sumsX[Length] - sumsX[second]);
                (float w0, float w1, float w2) = (sumsW[first], sumsW[second] - sumsW[first], sumsW[Length] - sumsW[second]);
                for (int minus = 0; minus < 2; minus++)
                {
                    float delta = minus == 0 ? Delta : -Delta;
                    (float q0, float q1, float q2) = (-1 + delta, delta, 1 + delta);
                    best.Offer((x0 * q0) + (x1 * q1) + (x2 * q2), (w0 * q0 * q0) + (w1 * q1 * q1) + (w2 * q2 * q2), first, second, 15 * minus);
                }
            }
        }

        return Settle(best, 15, x, w, order, fields, group);
    }

    /// <summary>A group of IQ1_M: 16 values, a delta for each half. Returns as <see cref="FindS"/>.</summary>
    private static float FindM(ReadOnlySpan<float> x, ReadOnlySpan<float> w, Iq1Fields fields, int group)
    {
        const int Length = 16;
        Span<byte> order = stackalloc byte[Length];
        if (!Sort(x, 1e-7f, order)) return 0;
        // Sums of the values up to each place in the order, of the first half in x and of the second in y: each half has a delta of its own.
        Span<HalfSums> sums = stackalloc HalfSums[Length + 1];
        sums[0] = default;
        for (int j = 0; j < Length; j++)
        {
            int i = order[j];
            (float a, float c) = (w[i] * x[i], w[i]);
            sums[j + 1] = i < 8 ? sums[j] with { FirstX = sums[j].FirstX + a, FirstW = sums[j].FirstW + c } : sums[j] with { SecondX = sums[j].SecondX + a, SecondW = sums[j].SecondW + c };
        }

        Split best = Split.None;
        HalfSums all = sums[Length];
        for (int first = 0; first <= Length; first++)
        {
            for (int second = first; second <= Length; second++)
            {
                (HalfSums low, HalfSums high) = (sums[first], sums[second]);
                (float firstX, float secondX) = (low.FirstX + high.FirstX, low.SecondX + high.SecondX);
                for (int k = 0; k < 4; k++)
                {
                    float one = (k & 2) != 0 ? -Delta : Delta, two = (k & 1) != 0 ? -Delta : Delta;
                    float sumQx = ((all.FirstX * (1 + one)) - firstX) + ((all.SecondX * (1 + two)) - secondX);
                    float sumQ2 = Squares(all.FirstW, low.FirstW, high.FirstW, one) + Squares(all.SecondW, low.SecondW, high.SecondW, two);
                    best.Offer(sumQx, sumQ2, first, second, k);
                }
            }
        }

        return Settle(best, 3, x, w, order, fields, group);
    }

    /// <summary>ggml's <c>qw * sqrt(2 * mean square + x^2)</c>, or x^2 without importance.</summary>
    private static void Weigh(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Span<float> weights)
    {
        float sum = 0;
        foreach (float value in values) sum += value * value;
        float variance = 2 * sum / 256;
        for (int i = 0; i < values.Length; i++)
        {
            weights[i] = importance.IsEmpty ? values[i] * values[i] : importance[i] * MathF.Sqrt(variance + (values[i] * values[i]));
        }
    }

    /// <summary>Positions of the values in ascending order, equal ones in their own. False for a group that ggml takes as zero.</summary>
    private static bool Sort(ReadOnlySpan<float> x, float epsilon, Span<byte> order)
    {
        float peak = 0;
        for (int j = 0; j < x.Length; j++)
        {
            peak = MathF.Max(peak, MathF.Abs(x[j]));
            int at = j;
            for (; at > 0 && x[order[at - 1]] > x[j]; at--) order[at] = order[at - 1];
            order[at] = (byte)j;
        }

        return peak >= epsilon;
    }

    /// <summary>Sum of weight x level^2 of a half, from the weights of all, of the values below 0 and of those below 1.</summary>
    private static float Squares(float all, float low, float high, float delta)
    {
        (float q0, float q1, float q2) = (-1 + delta, delta, 1 + delta);
        return (all * q2 * q2) + (low * ((q0 * q0) - (q1 * q1))) + (high * ((q1 * q1) - (q2 * q2)));
    }

    private readonly record struct HalfSums(float FirstX, float FirstW, float SecondX, float SecondW);

    /// <summary>Turns the best split into rows of the codebook; returns the group's scale.</summary>
    /// <param name="mask">Deltas that all granules of the group have as plus or minus, one bit each, the last granule lowest.</param>
    private static float Settle(Split best, int mask, ReadOnlySpan<float> x, ReadOnlySpan<float> w, ReadOnlySpan<byte> order, Iq1Fields fields, int group)
    {
        if (best.First < 0) return 0;
        float scale = best.Scale;
        bool isFlipped = scale < 0;
        Span<byte> codes = stackalloc byte[x.Length];
        for (int j = 0; j < order.Length; j++)
        {
            int code = j < best.First ? 0 : j < best.Second ? 1 : 2;
            codes[order[j]] = (byte)(isFlipped ? 2 - code : code);
        }

        int minus = isFlipped ? mask - best.Minus : best.Minus;
        scale = MathF.Abs(scale);
        int granules = x.Length / RowLength;
        bool isOnGrid = true;
        for (int k = 0; k < granules; k++)
        {
            int key = Key(codes.Slice(RowLength * k, RowLength));
            int row = Shared.IndexOf(key);
            bool hasMinus = ((minus >> (granules - 1 - k)) & 1) != 0;
            if (row < 0)
            {
                isOnGrid = false;
                row = NearestNeighbour(key, x.Slice(RowLength * k, RowLength), w.Slice(RowLength * k, RowLength), scale, hasMinus ? -Delta : Delta);
            }

            fields.Rows[(group * granules) + k] = (ushort)row;
            fields.HasMinus[(group * granules) + k] = hasMinus;
        }

        if (!isOnGrid)
        {
            float sumQx = 0, sumQ2 = 0;
            AddSums(x, w, fields, group * granules, 1, ref sumQx, ref sumQ2);
            if (sumQx > 0 && sumQ2 > 0) scale = sumQx / sumQ2;
        }

        return scale;
    }

    /// <summary>Adds, in index order, weight x q x value and weight x q^2, where q is <paramref name="multiple"/> times a stored value.</summary>
    private static void AddSums(ReadOnlySpan<float> x, ReadOnlySpan<float> w, Iq1Fields fields, int firstGranule, int multiple, ref float sumQx, ref float sumQ2)
    {
        for (int i = 0; i < x.Length; i++)
        {
            int granule = firstGranule + (i / RowLength);
            float q = (Shared.Row(fields.Rows[granule])[i % RowLength] - 1 + (fields.HasMinus[granule] ? -Delta : Delta)) * multiple;
            sumQx += w[i] * q * x[i];
            sumQ2 += w[i] * q * q;
        }
    }

    /// <summary>The neighbour that loses least; where none has a finite loss, where ggml's answer is undefined, the nearest.</summary>
    private static int NearestNeighbour(int key, ReadOnlySpan<float> x, ReadOnlySpan<float> w, float scale, float delta)
    {
        ReadOnlySpan<ushort> neighbours = Shared.Neighbours(key);
        float least = float.MaxValue;
        int best = neighbours[0];
        foreach (ushort neighbour in neighbours)
        {
            ReadOnlySpan<byte> row = Shared.Row(neighbour);
            float loss = 0;
            for (int j = 0; j < RowLength; j++)
            {
                float difference = (scale * (row[j] - 1 + delta)) - x[j];
                loss += w[j] * difference * difference;
            }

            if (loss < least) (least, best) = (loss, neighbour);
        }

        return best;
    }

    /// <summary>The best split so far: codes 0 below <see cref="First"/>, 1 below <see cref="Second"/>, 2 above.</summary>
    private struct Split
    {
        private float _score;

        public int First { get; private set; }
        public int Second { get; private set; }
        public int Minus { get; private set; }
        public float Scale { get; private set; }

        public static Split None => new() { _score = float.MinValue, First = -1 };

        public void Offer(float sumQx, float sumQ2, int first, int second, int minus)
        {
            if (!(sumQ2 > 0) || !(sumQx * sumQx > _score * sumQ2)) return;
            Scale = sumQx / sumQ2;
            _score = Scale * sumQx;
            (First, Second, Minus) = (first, second, minus);
        }
    }
}
