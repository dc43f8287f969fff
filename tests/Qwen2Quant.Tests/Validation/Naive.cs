namespace Qwen2Quant.Tests.Validation;

/// <summary>The formulas written down once more, plainly, in double throughout.</summary>
internal static class Naive
{
    public static double[] LogSoftmax(float[] logits)
    {
        double maximum = logits.Max();
        double logSum = Math.Log(logits.Sum(logit => Math.Exp(logit - maximum)));
        return [.. logits.Select(logit => logit - maximum - logSum)];
    }

    public static double Divergence(float[] baseLogits, float[] candidateLogits)
    {
        double[] p = LogSoftmax(baseLogits);
        double[] q = LogSoftmax(candidateLogits);
        return p.Select((logP, i) => Math.Exp(logP) * (logP - q[i])).Sum();
    }

    public static double Mean(IReadOnlyList<double> values) => values.Sum() / values.Count;

    /// <summary>Two passes: the mean first, then squared deviations.</summary>
    public static double StandardError(IReadOnlyList<double> values)
    {
        double mean = Mean(values);
        return Math.Sqrt(values.Sum(value => (value - mean) * (value - mean)) / values.Count / (values.Count - 1));
    }

    public static double Covariance(IReadOnlyList<double> x, IReadOnlyList<double> y)
    {
        double meanX = Mean(x), meanY = Mean(y);
        return x.Select((value, i) => (value - meanX) * (y[i] - meanY)).Sum() / x.Count / (x.Count - 1);
    }

    public static void Near(double expected, double actual, double relative, string what = "")
    {
        double difference = Math.Abs(expected - actual);
        Assert.True(difference <= relative * Math.Max(Math.Abs(expected), 1e-12), $"{what} expected {expected:G17}, found {actual:G17}, difference {difference:G3}");
    }
}
