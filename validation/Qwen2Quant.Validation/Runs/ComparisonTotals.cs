namespace Qwen2Quant.Validation;

/// <summary>The sums of a comparison over all positions, and the figures made of them.</summary>
internal sealed class ComparisonTotals
{
    private readonly MeanAccumulator _baseLoss = new();
    private readonly MeanAccumulator _candidateLoss = new();
    private readonly MeanAccumulator _lossDifference = new();
    private readonly MeanAccumulator _divergence = new();
    private readonly List<double> _divergences = [];
    private long _sameTop;

    public WorstPositions Worst { get; } = new();

    public void Add(in RowScore score)
    {
        _baseLoss.Add(score.BaseLoss);
        _candidateLoss.Add(score.CandidateLoss);
        _lossDifference.Add(score.CandidateLoss - score.BaseLoss);
        _divergence.Add(score.Divergence);
        _divergences.Add(score.Divergence);
        if (score.SameTop) _sameTop++;
    }

    public ComparisonResult Summarize(WindowPlan plan, Func<IReadOnlyList<int>, string> decode, double seconds)
    {
        long count = _divergence.Count;
        double agreement = (double)_sameTop / count;
        PerplexityFigure baseFigure = PerplexityFigure.From(_baseLoss, "base");
        PerplexityFigure candidateFigure = PerplexityFigure.From(_candidateLoss, "candidate");
        return new ComparisonResult(
            baseFigure,
            candidateFigure,
            candidateFigure.Perplexity / baseFigure.Perplexity,
            _lossDifference.Mean,
            // The variance of paired differences is u_q^2 + u_b^2 - 2 cov, llama-perplexity's form, without its cancellation.
            _lossDifference.StandardError,
            _divergence.Mean,
            _divergence.StandardError,
            KldPercentiles.From(_divergences),
            agreement,
            Math.Sqrt(agreement * (1 - agreement) / (count - 1)),
            count,
            plan.Context,
            plan.WindowCount,
            plan.Options.Protocol,
            plan.Options.Sampling,
            seconds,
            Worst.Describe(plan, decode));
    }
}
