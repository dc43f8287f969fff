using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

public class PerplexityRunTests
{
    [Theory]
    [InlineData(ScoringProtocol.Llama, WindowSampling.First, null)]
    [InlineData(ScoringProtocol.Llama, WindowSampling.Spread, 3)]
    [InlineData(ScoringProtocol.Full, WindowSampling.First, 2)]
    [InlineData(ScoringProtocol.Full, WindowSampling.Spread, 4)]
    public void EqualsTheNaiveFormula(ScoringProtocol protocol, WindowSampling sampling, int? chunks)
    {
        FakeModel model = new(307, 12, seed: 3);
        WindowOptions options = new() { Context = 32, Protocol = protocol, Sampling = sampling, Chunks = chunks };
        int[] tokens = FakeModel.RandomTokens(32 * 7 + 5, 307, seed: 4);
        WindowPlan plan = WindowPlan.Create(tokens, options, "text");
        PerplexityResult result = PerplexityRun.Run(model, plan, new RunOptions { Threads = 2 });

        int count = Math.Min(7, chunks ?? 7);
        List<double> losses = [];
        for (int i = 0; i < count; i++)
        {
            int window = sampling == WindowSampling.Spread ? i * 7 / count : i;
            int[] read = tokens[(window * 32)..((window + 1) * 32)];
            float[][] logits = model.AllLogits(read);
            for (int position = protocol == ScoringProtocol.Llama ? 16 : 0; position <= 30; position++)
            {
                losses.Add(-Naive.LogSoftmax(logits[position])[read[position + 1]]);
            }
        }

        double perplexity = Math.Exp(Naive.Mean(losses));
        Naive.Near(perplexity, result.Perplexity, 1e-6);
        Naive.Near(perplexity * Naive.StandardError(losses), result.StandardError, 1e-5);
        Assert.Equal(losses.Count, result.Tokens);
        Assert.Equal(32, result.Context);
        Assert.Equal(count, result.Chunks);
        Assert.Equal(protocol, result.Protocol);
        Assert.Equal(sampling, result.Sampling);
        Assert.True(result.Seconds > 0);
    }

    [Fact]
    public void UniformLogitsGiveTheVocabularySizeWithoutError()
    {
        FakeModel model = new(64, 4, seed: 1) { Override = static (_, _, _) => 2.5f };
        PerplexityResult result = PerplexityRun.Run(model, Plan(64), new RunOptions());
        Naive.Near(64, result.Perplexity, 1e-14);
        Assert.Equal(0, result.StandardError);
    }

    [Fact]
    public void ThreadsChunksAndWidthsDoNotChangeTheResult()
    {
        PerplexityResult Run(RunOptions options) =>
            PerplexityRun.Run(new FakeModel(211, 8, seed: 5), Plan(211), options) with { Seconds = 0 };

        PerplexityResult reference = Run(new RunOptions { Threads = 1, Level = SimdLevel.Scalar });
        foreach (SimdLevel level in Simd.Available)
        {
            foreach (int threads in new[] { 1, 2, 5 })
            {
                foreach (long bytes in new long[] { 1, 3 * 211 * 4, 32 << 20 })
                {
                    Assert.Equal(reference, Run(new RunOptions { Threads = threads, Level = level, LogitBytes = bytes }));
                }
            }
        }
    }

    [Fact]
    public void LogitsAreBoundedAndOnlyScoredRowsAreComputed()
    {
        int rows = 0;
        FakeModel model = new(100, 6, seed: 6)
        {
            Override = (_, position, token) =>
            {
                if (token == 0) rows++;
                Assert.InRange(position, 8, 14);
                return null;
            },
        };
        PerplexityRun.Run(model, Plan(100), new RunOptions { LogitBytes = 3 * 400 + 399 });
        Assert.Equal(3, model.LargestRowCount);
        Assert.Equal(4 * 7, rows);
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.PositiveInfinity)]
    [InlineData(float.NegativeInfinity)]
    public void NonFiniteLogitsNameWindowAndPosition(float bad)
    {
        FakeModel model = new(100, 6, seed: 7) { Override = (window, position, token) => window == 2 && position >= 11 && token == 42 ? bad : null };
        WindowPlan plan = WindowPlan.Create(
            FakeModel.RandomTokens(16 * 8, 100, 8), new WindowOptions { Context = 16, Chunks = 4, Sampling = WindowSampling.Spread }, "text");
        QuantException error = Assert.Throws<QuantException>(() => PerplexityRun.Run(model, plan, new RunOptions { Threads = 2, LogitBytes = 800 }));
        Assert.Equal(ErrorKind.Numeric, error.Kind);
        Assert.Equal(NumericRules.FiniteActivations, error.Rule);
        Assert.Contains("for token 42 at window 4, position 11", error.Message);
    }

    [Fact]
    public void LossesBeyondTheRangeOfNumbersAreRefused()
    {
        FakeModel model = new(10, 4, seed: 7) { Override = static (_, _, token) => token == 9 ? 3e4f : 0 };
        int[] tokens = FakeModel.RandomTokens(64, 9, 8);
        QuantException error = Assert.Throws<QuantException>(
            () => PerplexityRun.Run(model, WindowPlan.Create(tokens, new WindowOptions { Context = 16 }, "text"), new RunOptions()));
        Assert.Equal(ErrorKind.Numeric, error.Kind);

        FakeModel apart = new(10, 4, seed: 7) { Override = static (_, _, token) => token == 9 ? float.MaxValue : float.MinValue };
        error = Assert.Throws<QuantException>(
            () => PerplexityRun.Run(apart, WindowPlan.Create(tokens, new WindowOptions { Context = 16 }, "text"), new RunOptions()));
        Assert.Contains("too far apart at window 0, position 8", error.Message);
    }

    [Fact]
    public void BeginTokenIsReadAndProgressReachesItsTotal()
    {
        FakeModel model = new(100, 6, seed: 9);
        WindowPlan plan = WindowPlan.Create(FakeModel.RandomTokens(64, 99, 10), new WindowOptions { Context = 16, BeginToken = 99 }, "text");
        RecordingProgress progress = new();
        PerplexityRun.Run(model, plan, new RunOptions { Progress = progress });
        Assert.All(model.Inputs, input => Assert.Equal(99, input[0]));
        Assert.Equal(64, progress.Total);
        Assert.Equal(64, progress.Done);
        Assert.True(progress.IsDisposed);
    }

    [Fact]
    public void CancellationStopsAtTheNextWindow()
    {
        using CancellationTokenSource source = new();
        FakeModel model = new(100, 6, seed: 9) { OnForward = number => { if (number == 1) source.Cancel(); } };
        Assert.Throws<OperationCanceledException>(() => PerplexityRun.Run(model, Plan(100), new RunOptions(), source.Token));
        Assert.Equal(2, model.Inputs.Count);
    }

    private static WindowPlan Plan(int vocabularySize) =>
        WindowPlan.Create(FakeModel.RandomTokens(64, vocabularySize, 12), new WindowOptions { Context = 16 }, "text");

    private sealed class RecordingProgress : IProgressSink, IProgressTask
    {
        public long Total { get; private set; }
        public long Done { get; private set; }
        public bool IsDisposed { get; private set; }

        public IProgressTask Start(string title, long total, string unit)
        {
            Total = total;
            return this;
        }

        public void Advance(long amount) => Done += amount;

        public void Dispose() => IsDisposed = true;
    }
}
