using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model;

/// <summary>Chooses a token from logits: penalty, temperature, top-k, top-p, then one draw, in Transformers' order. Of equal logits the lower id comes first.</summary>
public static class Sampler
{
    /// <param name="logits">One value for each token.</param>
    /// <param name="occurred">Tokens of the text so far, for the penalty; each counts once.</param>
    /// <param name="draw">From 0 to below 1; not used when greedy.</param>
    /// <exception cref="QuantException">A logit is not finite, or an option is out of range.</exception>
    public static int Choose(ReadOnlySpan<float> logits, IReadOnlySet<int> occurred, SamplingOptions options, double draw)
    {
        Check(options);
        double[] scores = new double[logits.Length];
        for (int id = 0; id < scores.Length; id++)
        {
            double score = logits[id];
            if (!double.IsFinite(score)) throw new QuantException(ErrorKind.Numeric, $"the logit of token {id} is not finite");
            if (options.RepetitionPenalty != 1 && occurred.Contains(id)) score = score > 0 ? score / options.RepetitionPenalty : score * options.RepetitionPenalty;
            scores[id] = score;
        }

        if (options.Temperature == 0 || options.TopK == 1) return IndexOfMaximum(scores);

        int[] order = new int[scores.Length];
        for (int id = 0; id < order.Length; id++) order[id] = id;
        Array.Sort(order, (a, b) => scores[a] != scores[b] ? scores[b].CompareTo(scores[a]) : a.CompareTo(b));
        int count = options.TopK > 0 ? Math.Min(options.TopK, order.Length) : order.Length;
        double[] weights = new double[count];
        double total = 0;
        for (int i = 0; i < count; i++) total += weights[i] = Math.Exp((scores[order[i]] - scores[order[0]]) / options.Temperature);

        double kept = 0;
        int keptCount = 0;
        while (keptCount < count && kept < options.TopP * total) kept += weights[keptCount++];

        double target = draw * kept;
        for (int i = 0; i < keptCount - 1; i++)
        {
            target -= weights[i];
            if (target < 0) return order[i];
        }

        return order[keptCount - 1];
    }

    private static int IndexOfMaximum(double[] scores)
    {
        int best = 0;
        for (int id = 1; id < scores.Length; id++)
        {
            if (scores[id] > scores[best]) best = id;
        }

        return best;
    }

    private static void Check(SamplingOptions options)
    {
        if (options.Temperature is not (>= 0 and <= double.MaxValue)) throw Refuse("temperature", "not negative");
        if (options.TopP is not (> 0 and <= 1)) throw Refuse("top_p", "above 0 and at most 1");
        if (options.TopK < 0) throw Refuse("top_k", "not negative");
        if (options.RepetitionPenalty is not (> 0 and <= double.MaxValue)) throw Refuse("repetition_penalty", "above 0");
    }

    private static QuantException Refuse(string option, string expected) => new(ErrorKind.Usage, $"{option} is out of range") { Expected = expected };
}
