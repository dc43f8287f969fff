using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

public class ComparisonRunTests
{
    private const int Vocabulary = 401;

    [Fact]
    public void EqualsTheNaiveFormulas()
    {
        FakeModel first = Base();
        FakeModel second = Candidate();
        int[] tokens = FakeModel.RandomTokens(24 * 6, Vocabulary, 20);
        ComparisonResult result = Run(first, second, tokens, new RunOptions { Threads = 2, LogitBytes = 5 * Vocabulary * 4 });

        List<(double Kld, int Window, int Position)> places = [];
        List<double> baseLosses = [], candidateLosses = [], divergences = [], differences = [];
        int same = 0;
        for (int window = 0; window < 6; window++)
        {
            int[] read = tokens[(window * 24)..((window + 1) * 24)];
            float[][] a = first.AllLogits(read);
            float[][] b = second.AllLogits(read);
            for (int position = 12; position <= 22; position++)
            {
                baseLosses.Add(-Naive.LogSoftmax(a[position])[read[position + 1]]);
                candidateLosses.Add(-Naive.LogSoftmax(b[position])[read[position + 1]]);
                differences.Add(candidateLosses[^1] - baseLosses[^1]);
                divergences.Add(Naive.Divergence(a[position], b[position]));
                places.Add((divergences[^1], window, position));
                if (Array.IndexOf(a[position], a[position].Max()) == Array.IndexOf(b[position], b[position].Max())) same++;
            }
        }

        int count = divergences.Count;
        double ratio = Math.Exp(Naive.Mean(candidateLosses) - Naive.Mean(baseLosses));
        Naive.Near(Math.Exp(Naive.Mean(baseLosses)), result.Base.Perplexity, 1e-6);
        Naive.Near(Math.Exp(Naive.Mean(baseLosses)) * Naive.StandardError(baseLosses), result.Base.StandardError, 1e-5);
        Naive.Near(Math.Exp(Naive.Mean(candidateLosses)), result.Candidate.Perplexity, 1e-6);
        Naive.Near(Math.Exp(Naive.Mean(candidateLosses)) * Naive.StandardError(candidateLosses), result.Candidate.StandardError, 1e-5);
        Naive.Near(ratio, result.PerplexityRatio, 1e-6);
        Assert.Equal(Math.Log(ratio), result.LnPerplexityRatio, 1e-6);
        double variance = Math.Pow(Naive.StandardError(candidateLosses), 2) + Math.Pow(Naive.StandardError(baseLosses), 2)
            - (2 * Naive.Covariance(candidateLosses, baseLosses));
        Naive.Near(Math.Sqrt(variance), result.LnPerplexityRatioStandardError, 1e-4);
        Assert.Equal(Naive.Mean(divergences), result.MeanKld, 1e-7);
        Naive.Near(Naive.StandardError(divergences), result.MeanKldStandardError, 1e-4);
        double agreement = (double)same / count;
        Assert.InRange(agreement, 0.05, 0.99);
        Assert.Equal(agreement, result.TopTokenAgreement);
        Naive.Near(Math.Sqrt(agreement * (1 - agreement) / (count - 1)), result.TopTokenAgreementStandardError, 1e-12);
        Assert.Equal(count, result.Tokens);
        Assert.Equal(divergences.Max(), result.Kld.Max, 1e-6);
        divergences.Sort();
        Assert.Equal(66, count);
        Assert.Equal((divergences[32] + divergences[33]) / 2, result.Kld.P50, 1e-6);
        Assert.Equal((0.5 * divergences[58]) + (0.5 * divergences[59]), result.Kld.P90, 1e-6);

        (double Kld, int Window, int Position)[] worst = [.. places.OrderByDescending(place => place.Kld).Take(10)];
        Assert.Equal(worst.Select(place => (place.Window, place.Position)), result.WorstPositions.Select(place => (place.Window, place.Position)));
        Assert.All(worst.Zip(result.WorstPositions), pair => Assert.Equal(pair.First.Kld, pair.Second.Kld, 1e-6));
    }

    [Fact]
    public void WorstPositionsShowTextAndProbabilities()
    {
        FakeModel first = Base();
        FakeModel second = Candidate();
        int[] tokens = FakeModel.RandomTokens(96 * 2, Vocabulary, 20);
        WindowPlan plan = WindowPlan.Create(tokens, new WindowOptions { Context = 96 }, "text");
        ComparisonResult result = ComparisonRun.Run(first, second, plan, Decode, new RunOptions());
        Assert.Equal(10, result.WorstPositions.Count);
        foreach (WorstPosition place in result.WorstPositions)
        {
            int[] read = tokens[(place.Window * 96)..((place.Window + 1) * 96)];
            int target = place.Position + 1;
            Assert.Equal(Decode(read[(target - 32)..target]), place.TextBefore);
            Assert.Equal(Decode(read[(target + 1)..Math.Min(target + 9, 96)]), place.TextAfter);
            Assert.Equal(read[target], place.Expected.Id);
            Assert.Equal(Decode([read[target]]), place.Expected.Text);
            double[] p = Naive.LogSoftmax(first.AllLogits(read)[place.Position]);
            double[] q = Naive.LogSoftmax(second.AllLogits(read)[place.Position]);
            Naive.Near(Math.Exp(p[read[target]]), place.Expected.BaseProbability, 1e-5);
            Naive.Near(Math.Exp(q[read[target]]), place.Expected.CandidateProbability, 1e-5);
            CheckTop(p, place.BaseTop);
            CheckTop(q, place.CandidateTop);
        }

        static void CheckTop(double[] logProbabilities, IReadOnlyList<TokenProbability> top)
        {
            int[] expected = [.. Enumerable.Range(0, Vocabulary).OrderByDescending(id => logProbabilities[id]).ThenBy(id => id).Take(5)];
            Assert.Equal(expected, top.Select(token => token.Id));
            Assert.All(top, token => Naive.Near(Math.Exp(logProbabilities[token.Id]), token.Probability, 1e-5));
            Assert.All(top, token => Assert.Equal(Decode([token.Id]), token.Text));
        }
    }

    [Fact]
    public void EqualModelsDoNotDiffer()
    {
        ComparisonResult result = Run(Base(), Base(), FakeModel.RandomTokens(24 * 6, Vocabulary, 20), new RunOptions());
        Assert.Equal(result.Base, result.Candidate);
        Assert.Equal(1, result.PerplexityRatio);
        Assert.Equal(0, result.LnPerplexityRatio);
        Assert.Equal(0, result.LnPerplexityRatioStandardError);
        Assert.Equal(0, result.MeanKld);
        Assert.Equal(0, result.MeanKldStandardError);
        Assert.Equal(new KldPercentiles(0, 0, 0, 0, 0, 0), result.Kld);
        Assert.Equal(1, result.TopTokenAgreement);
        Assert.Equal(0, result.TopTokenAgreementStandardError);
        Assert.Equal(Enumerable.Range(12, 10), result.WorstPositions.Select(place => place.Position));
    }

    [Fact]
    public void BasePerplexityIsThatOfAPerplexityRun()
    {
        int[] tokens = FakeModel.RandomTokens(24 * 6, Vocabulary, 20);
        ComparisonResult comparison = Run(Base(), Candidate(), tokens, new RunOptions());
        PerplexityResult alone = PerplexityRun.Run(Base(), WindowPlan.Create(tokens, new WindowOptions { Context = 24 }, "text"), new RunOptions());
        Assert.Equal(alone.Perplexity, comparison.Base.Perplexity);
        Assert.Equal(alone.StandardError, comparison.Base.StandardError);
    }

    [Fact]
    public void ThreadsChunksAndWidthsDoNotChangeTheResult()
    {
        int[] tokens = FakeModel.RandomTokens(24 * 4, Vocabulary, 20);
        string Document(RunOptions options) =>
            System.Text.Json.JsonSerializer.Serialize(Run(Base(), Candidate(), tokens, options) with { Seconds = 0 }, ValidationJson.Default.ComparisonResult);

        string reference = Document(new RunOptions { Threads = 1, Level = SimdLevel.Scalar });
        foreach (SimdLevel level in Simd.Available)
        {
            foreach (int threads in new[] { 1, 2, 3 })
            {
                foreach (long bytes in new long[] { 1, 4 * Vocabulary * 4, 32 << 20 })
                {
                    Assert.Equal(reference, Document(new RunOptions { Threads = threads, Level = level, LogitBytes = bytes }));
                }
            }
        }
    }

    [Fact]
    public void DifferentVocabulariesAreRefused()
    {
        QuantException error = Assert.Throws<QuantException>(
            () => Run(Base(), new FakeModel(Vocabulary + 7, 12, seed: 1), FakeModel.RandomTokens(48, Vocabulary, 20), new RunOptions()));
        Assert.Equal(ErrorKind.InvalidInput, error.Kind);
        Assert.Contains("found 408, expected 401", error.Message);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void NonFiniteLogitsNameTheModel(bool inBase)
    {
        FakeModel broken = new(Vocabulary, 12, seed: 1) { Override = (window, position, token) => window == 1 && position == 13 && token == 5 ? float.NaN : null };
        int[] tokens = FakeModel.RandomTokens(24 * 6, Vocabulary, 20);
        QuantException error = Assert.Throws<QuantException>(
            () => inBase ? Run(broken, Base(), tokens, new RunOptions()) : Run(Base(), broken, tokens, new RunOptions()));
        Assert.Equal(NumericRules.FiniteActivations, error.Rule);
        Assert.Contains(inBase ? "the base's" : "the candidate's", error.Message);
        Assert.Contains("NaN for token 5 at window 1, position 13", error.Message);
    }

    [Fact]
    public void CancellationStopsAtTheNextWindow()
    {
        using CancellationTokenSource source = new();
        FakeModel first = new(Vocabulary, 12, seed: 1) { OnForward = _ => source.Cancel() };
        FakeModel second = Candidate();
        WindowPlan plan = WindowPlan.Create(FakeModel.RandomTokens(96, Vocabulary, 20), new WindowOptions { Context = 24 }, "text");
        Assert.Throws<OperationCanceledException>(() => ComparisonRun.Run(first, second, plan, Decode, new RunOptions(), source.Token));
        Assert.Single(first.Inputs);
        Assert.Single(second.Inputs);
    }

    private static FakeModel Base() => new(Vocabulary, 12, seed: 1);

    private static FakeModel Candidate() => new(Vocabulary, 12, seed: 1, noise: 0.3f);

    private static ComparisonResult Run(FakeModel first, FakeModel second, int[] tokens, RunOptions options) =>
        ComparisonRun.Run(first, second, WindowPlan.Create(tokens, new WindowOptions { Context = 24 }, "text"), Decode, options);

    private static string Decode(IReadOnlyList<int> tokens) => string.Join(' ', tokens.Select(token => $"<{token}>"));
}
