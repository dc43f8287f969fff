namespace Qwen2Quant.Validation;

/// <summary>Mean and standard error from sums, in the order in which values are added, as llama-perplexity computes them.</summary>
internal sealed class MeanAccumulator
{
    private double _sum;
    private double _squares;

    public long Count { get; private set; }

    public double Mean => _sum / Count;

    /// <summary><c>sqrt((sum of squares / n - mean^2) / (n - 1))</c>; 0 where rounding makes the variance negative or one value leaves it undefined.</summary>
    public double StandardError
    {
        get
        {
            double variance = (_squares / Count) - (Mean * Mean);
            return variance > 0 && Count > 1 ? Math.Sqrt(variance / (Count - 1)) : 0;
        }
    }

    public void Add(double value)
    {
        _sum += value;
        _squares += value * value;
        Count++;
    }
}
