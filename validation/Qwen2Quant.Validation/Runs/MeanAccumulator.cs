namespace Qwen2Quant.Validation;

/// <summary>Mean and standard error from sums, in the order in which values are added: llama-perplexity's formulas.</summary>
internal sealed class MeanAccumulator
{
    private double _sum;
    private double _first;
    private double _shiftedSum;
    private double _shiftedSquares;

    public long Count { get; private set; }

    public double Mean => _sum / Count;

    /// <summary><c>sqrt((sum of squares / n - mean^2) / (n - 1))</c>; 0 where rounding makes the variance negative or one value leaves it undefined.</summary>
    public double StandardError
    {
        get
        {
            double shiftedMean = _shiftedSum / Count;
            double variance = (_shiftedSquares / Count) - (shiftedMean * shiftedMean);
            return variance > 0 && Count > 1 ? Math.Sqrt(variance / (Count - 1)) : 0;
        }
    }

    public void Add(double value)
    {
        // The variance does not change when all values are moved by the first, and then does not cancel.
        if (Count == 0) _first = value;
        double shifted = value - _first;
        _sum += value;
        _shiftedSum += shifted;
        _shiftedSquares += shifted * shifted;
        Count++;
    }
}
