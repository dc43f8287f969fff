namespace Qwen2Quant.Validation;

/// <summary>Percentiles of a sample by linear interpolation between the sorted values, as llama-perplexity takes them.</summary>
internal static class Percentiles
{
    /// <summary>The value at rank <c>fraction * (n - 1)</c> of an ascending, non-empty sample.</summary>
    /// <param name="fraction">0 to 1.</param>
    public static double Of(ReadOnlySpan<double> ascending, double fraction)
    {
        double rank = fraction * (ascending.Length - 1);
        int below = (int)rank;
        if (below >= ascending.Length - 1) return ascending[^1];
        double weight = rank - below;
        return ((1 - weight) * ascending[below]) + (weight * ascending[below + 1]);
    }
}
