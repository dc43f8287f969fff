namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct CodebookBlock<TLayout>
{
    /// <summary>
    /// Exact: the metric's Cholesky factor R turns the error into a sum of squares, term i of which depends on values i and later alone, so that values are chosen
    /// from the last to the first, nearest first, and a beginning that costs more than the best end is given up (sphere decoding). Words ascend with the last
    /// element highest: rows that agree on their last elements are neighbours in the codebook.
    /// </summary>
    public static void Round(ReadOnlySpan<float> granule, ReadOnlySpan<float> metric, ReadOnlySpan<float> parameters, int firstIndex, Span<byte> codes)
    {
        int length = Shape.GranuleLength;
        if (granule.Length != length || codes.Length != length || (metric.Length != 0 && metric.Length != length && metric.Length != length * length))
        {
            throw new ArgumentException($"{granule.Length} values, {metric.Length} weights and {codes.Length} codes where a granule of {Name} has {length}");
        }

        double step = TLayout.Step(parameters[0], (int)parameters[1 + (firstIndex / SubLength)]);
        Span<double> values = stackalloc double[length];
        for (int i = 0; i < length; i++) values[i] = step == 0 ? 0 : granule[i] / step;
        RowSearch search = new(values, Factor(metric, stackalloc double[length * length], length), stackalloc double[length], stackalloc byte[length], codes);
        search.Choose(length - 1, 0, TLayout.Codebook.Count, 0, 0);
    }

    /// <summary>The upper triangular R with <c>R'R = metric</c>, row after row; a row whose pivot is not positive is zero.</summary>
    private static ReadOnlySpan<double> Factor(ReadOnlySpan<float> metric, Span<double> factor, int length)
    {
        factor.Clear();
        for (int i = 0; i < length; i++)
        {
            double pivot = metric.Length == 0 ? 1 : metric.Length == length ? metric[i] : metric[(i * length) + i];
            for (int k = 0; k < i; k++) pivot -= factor[(k * length) + i] * factor[(k * length) + i];
            if (!(pivot > 0)) continue;
            double root = factor[(i * length) + i] = Math.Sqrt(pivot);
            if (metric.Length <= length) continue;
            for (int j = i + 1; j < length; j++)
            {
                double sum = metric[(i * length) + j];
                for (int k = 0; k < i; k++) sum -= factor[(k * length) + i] * factor[(k * length) + j];
                factor[(i * length) + j] = sum / root;
            }
        }

        return factor;
    }

    /// <param name="values">Values in units of the step.</param>
    /// <param name="errors">Room for the errors of the values chosen so far.</param>
    /// <param name="chosen">Room for their codes.</param>
    private ref struct RowSearch(ReadOnlySpan<double> values, ReadOnlySpan<double> factor, Span<double> errors, Span<byte> chosen, Span<byte> best)
    {
        private readonly ReadOnlySpan<double> _values = values;
        private readonly ReadOnlySpan<double> _factor = factor;
        private readonly Span<double> _errors = errors;
        private readonly Span<byte> _chosen = chosen;
        private readonly Span<byte> _best = best;
        private double _leastCost = double.PositiveInfinity;

        /// <summary>Chooses value <paramref name="i"/> and those before it; rows from <paramref name="low"/> to below <paramref name="high"/> have the elements chosen so far.</summary>
        public void Choose(int i, int low, int high, double cost, int negativeCount)
        {
            double others = 0;
            for (int j = i + 1; j < _values.Length; j++) others += _factor[(i * _values.Length) + j] * _errors[j];
            Span<(double Cost, byte Code, int Low, int High)> options = stackalloc (double, byte, int, int)[SignedLevels.Length];
            int count = 0;
            int levelCount = SignedLevels.Length / 2;
            int element = i % TLayout.RowLength;
            for (int start = low; start < high;)
            {
                int field = TLayout.Codebook.FieldOf(TLayout.Codebook.Words[start], element);
                int end = start + 1;
                while (end < high && TLayout.Codebook.FieldOf(TLayout.Codebook.Words[end], element) == field) end++;
                for (int sign = 0; sign < 2; sign++)
                {
                    if (TLayout.HasEvenSigns && i == 0 && ((negativeCount + sign) & 1) != 0) continue;
                    byte code = (byte)(sign == 0 ? levelCount + field : levelCount - 1 - field);
                    double term = (_factor[(i * _values.Length) + i] * (SignedLevels[code] - _values[i])) + others;
                    int at = count++;
                    for (; at > 0 && options[at - 1].Cost > term * term; at--) options[at] = options[at - 1];
                    options[at] = (term * term, code, start, end);
                }

                start = end;
            }

            foreach ((double added, byte code, int first, int end) in options[..count])
            {
                if (!(cost + added < _leastCost)) return;
                _chosen[i] = code;
                _errors[i] = SignedLevels[code] - _values[i];
                if (i == 0)
                {
                    _leastCost = cost + added;
                    _chosen.CopyTo(_best);
                    return;
                }

                if (element == 0) Choose(i - 1, 0, TLayout.Codebook.Count, cost + added, negativeCount + (code < levelCount ? 1 : 0));
                else Choose(i - 1, first, end, cost + added, negativeCount + (code < levelCount ? 1 : 0));
            }
        }
    }
}
