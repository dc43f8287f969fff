using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Model;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Model;

public class SamplerTests(ITestOutputHelper print)
{
    [Fact]
    public void GreedyTakesTheLowestOfEqualLogits()
    {
        Assert.Equal(1, Choose([0, 5, 5, -1], new SamplingOptions(), 0.9));
        float[] flat = new float[300];
        flat[70] = -0f;
        Assert.Equal(0, Choose(flat, new SamplingOptions(), 0.9));
        Assert.Equal(0, Choose([-0f, 0f], new SamplingOptions(), 0.9));
    }

    [Fact]
    public void PenaltyDividesPositiveAndMultipliesNegativeLogits()
    {
        SamplingOptions options = new() { RepetitionPenalty = 2 };
        Assert.Equal(1, Choose([4, 3, 1], options, 0, 0));
        Assert.Equal(1, Choose([-2, -3, -9], options, 0, 0));
        Assert.Equal(0, Choose([7, 3, 1], options, 0, 0, 0));
        Sampler sampler = new(options, 3);
        sampler.Accept(0);
        sampler.Forget();
        Assert.Equal(0, sampler.Choose([4, 3, 1], 0));
    }

    [Theory]
    [InlineData(0.0, 2)]
    [InlineData(0.49, 2)]
    [InlineData(0.51, 0)]
    [InlineData(0.79, 0)]
    [InlineData(0.81, 1)]
    [InlineData(0.999999, 1)]
    public void DrawsByProbability(double draw, int expected)
    {
        float[] logits = [MathF.Log(0.3f), MathF.Log(0.2f), MathF.Log(0.5f)];
        Assert.Equal(expected, Choose(logits, new SamplingOptions { Temperature = 1 }, draw));
    }

    [Fact]
    public void TopKAndTopPCutTheTail()
    {
        float[] logits = [MathF.Log(0.3f), MathF.Log(0.2f), MathF.Log(0.5f)];
        Assert.Equal(0, Choose(logits, new SamplingOptions { Temperature = 1, TopK = 2 }, 0.9999));
        Assert.Equal(0, Choose(logits, new SamplingOptions { Temperature = 1, TopP = 0.6 }, 0.9999));
        Assert.Equal(2, Choose(logits, new SamplingOptions { Temperature = 1, TopP = 0.4 }, 0.9999));
        Assert.Equal(2, Choose(logits, new SamplingOptions { Temperature = 5, TopK = 1 }, 0.9999));
        Assert.Equal(2, Choose(logits, new SamplingOptions { Temperature = 0.01 }, 0.9999));
        Assert.Equal(2, Choose(logits, new SamplingOptions { Temperature = 1e-300, TopP = 1e-300 }, 0.9999));
        Assert.Equal(1, Choose(logits, new SamplingOptions { Temperature = 1e300 }, 0.9999));
    }

    /// <summary>The choice is that of sorting the whole vocabulary, whatever the distribution, with ties and at the edges of the draw.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(64)]
    [InlineData(65)]
    [InlineData(1000)]
    [InlineData(5000)]
    public void TheChoiceIsThatOfAFullSort(int vocabulary)
    {
        Random random = new(20260131 + vocabulary);
        for (int trial = 0; trial < 150; trial++)
        {
            double spread = new[] { 0, 0.1, 3, 12 }[random.Next(4)];
            bool hasTies = random.Next(2) == 0;
            float[] logits = [.. Enumerable.Range(0, vocabulary).Select(_ => (float)(hasTies ? Math.Round(spread * Normal(random)) : spread * Normal(random)))];
            SamplingOptions options = new()
            {
                Temperature = new[] { 0, 0.3, 0.7, 1, 2, 100 }[random.Next(6)],
                TopK = new[] { 0, 0, 1, 2, 20, 40, vocabulary, 2 * vocabulary }[random.Next(8)],
                TopP = new[] { 1, 1, 0.8, 0.95, 0.05, 0.999999 }[random.Next(6)],
                RepetitionPenalty = new[] { 1, 1.05, 0.5 }[random.Next(3)],
            };
            double draw = new[] { 0, 1 - Math.ScaleB(1, -53), random.NextDouble(), random.NextDouble() }[random.Next(4)];
            int[] occurred = [.. Enumerable.Range(0, random.Next(20)).Select(_ => random.Next(vocabulary))];
            Assert.Equal(ByFullSort(logits, options, draw, occurred), Choose(logits, options, draw, occurred));
        }
    }

    /// <summary>10,000 draws come as often as the probabilities say, within five standard deviations.</summary>
    [Theory]
    [InlineData(0, 1)]
    [InlineData(3, 1)]
    [InlineData(0, 0.9)]
    public void FrequenciesAreTheProbabilities(int topK, double topP)
    {
        const int draws = 10_000;
        float[] logits = [1, 3, 2.5f, 0, -1];
        double[] weights = [.. logits.Select(logit => Math.Exp(logit / 0.8))];
        int[] order = [1, 2, 0, 3, 4];
        int kept = topK == 0 ? 5 : topK;
        double total = weights.Sum(), sum = 0;
        if (topP < 1) for (kept = 0; sum < topP * total; kept++) sum += weights[order[kept]];
        total = order.Take(kept).Sum(id => weights[id]);

        Sampler sampler = new(new SamplingOptions { Temperature = 0.8, TopK = topK, TopP = topP, Seed = 17 }, 5);
        int[] counts = new int[5];
        for (int i = 0; i < draws; i++) counts[sampler.Choose([.. logits])]++;
        for (int rank = 0; rank < 5; rank++)
        {
            double p = rank < kept ? weights[order[rank]] / total : 0;
            Assert.InRange(counts[order[rank]], draws * p - (5 * Math.Sqrt(draws * p * (1 - p))), draws * p + (5 * Math.Sqrt(draws * p * (1 - p))));
        }
    }

    [Fact]
    public void BadOptionsAndLogitsAreRefused()
    {
        Assert.Equal(ErrorKind.Numeric, Assert.Throws<QuantException>(() => Choose([0, float.NaN], new SamplingOptions(), 0)).Kind);
        Assert.Equal(ErrorKind.Numeric, Assert.Throws<QuantException>(() => Choose([0, float.NegativeInfinity], new SamplingOptions { Temperature = 1 }, 0)).Kind);
        foreach (SamplingOptions options in new[]
        {
            new SamplingOptions { Temperature = -1 }, new SamplingOptions { Temperature = double.NaN }, new SamplingOptions { TopP = 0 },
            new SamplingOptions { TopP = 1.5 }, new SamplingOptions { TopK = -1 }, new SamplingOptions { RepetitionPenalty = 0 },
        })
        {
            Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => new Sampler(options, 2)).Kind);
        }
    }

    [Fact]
    public void AChoiceTakesNoMemory()
    {
        foreach (SamplingOptions options in Speeds.Values)
        {
            Sampler sampler = new(options, 2000);
            float[] logits = Logits(2000, 3);
            sampler.Choose(logits);
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 10; i++) sampler.Accept(sampler.Choose(logits));
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1000);
        }
    }

    /// <summary>Prints what a token costs with Qwen2's vocabulary; the figures are no test.</summary>
    [Fact]
    public void CostsArePrinted()
    {
        const int vocabulary = 151936;
        foreach ((string name, SamplingOptions options) in Speeds)
        {
            Sampler sampler = new(options, vocabulary);
            float[] logits = Logits(vocabulary, 3);
            double best = double.MaxValue;
            for (int i = 0; i < 60; i++)
            {
                long start = Stopwatch.GetTimestamp();
                int token = sampler.Choose(logits);
                best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalMilliseconds);
                Assert.InRange(token, 0, vocabulary - 1);
            }

            print.WriteLine($"{name}: {best:0.000} ms");
        }
    }

    private static Dictionary<string, SamplingOptions> Speeds { get; } = new()
    {
        ["greedy"] = new(),
        ["Qwen2-Instruct's top-k 20, top-p 0.8"] = new() { Temperature = 0.7, TopK = 20, TopP = 0.8, RepetitionPenalty = 1.05 },
        ["top-p 0.95"] = new() { Temperature = 0.8, TopP = 0.95 },
        ["temperature 1"] = new() { Temperature = 1 },
        ["temperature 10, near to flat"] = new() { Temperature = 10, TopP = 0.95 },
    };

    private static float[] Logits(int count, double spread)
    {
        Random random = new(5);
        float[] logits = [.. Enumerable.Range(0, count).Select(_ => (float)(spread * Normal(random)))];
        for (int i = 0; i < 50; i++) logits[random.Next(count)] += 10;
        return logits;
    }

    private static int Choose(float[] logits, SamplingOptions options, double draw, params int[] occurred)
    {
        Sampler sampler = new(options, logits.Length);
        foreach (int token in occurred) sampler.Accept(token);
        return sampler.Choose([.. logits], draw);
    }

    private static int ByFullSort(float[] logits, SamplingOptions options, double draw, int[] occurred)
    {
        float penalty = (float)options.RepetitionPenalty;
        float[] scores = [.. logits.Select((logit, id) => !occurred.Contains(id) ? logit : logit > 0 ? logit / penalty : logit * penalty)];
        int[] order = [.. Enumerable.Range(0, scores.Length).OrderByDescending(id => scores[id]).ThenBy(id => id)];
        if (options.Temperature == 0) return order[0];
        if (options.TopK > 0) order = [.. order.Take(options.TopK)];
        float maximum = scores[order[0]], inverse = (float)(1 / options.Temperature);
        long[] weights = [.. order.Select(id => (long)(Exponential.Evaluate((scores[id] - maximum) * inverse) * (1L << 34)))];
        double need = options.TopP < 1 ? options.TopP * weights.Sum() : 0;
        int kept = order.Length;
        if (options.TopP < 1)
        {
            long sum = 0;
            for (kept = 0; kept == 0 || sum < need; kept++) sum += weights[kept];
        }

        long target = (long)(draw * weights.Take(kept).Sum());
        int chosen = 0;
        for (long sum = weights[0]; sum <= target; sum += weights[chosen]) chosen++;
        return order[chosen];
    }

    private static double Normal(Random random) => Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
}
