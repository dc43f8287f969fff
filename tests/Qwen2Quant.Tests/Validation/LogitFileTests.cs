using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Rules;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

/// <summary>llama-perplexity's base file: what is written, what is read, and the figures that come of it.</summary>
public sealed class LogitFileTests : IDisposable
{
    private const int Window = 24, Vocabulary = 401;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>An odd and an even vocabulary, all log-probabilities within 16 nats and not.</summary>
    [Theory]
    [InlineData(401, 0.3f, 1)]
    [InlineData(402, 0.3f, 2)]
    [InlineData(401, 12f, 3)]
    public void ASecondReaderFindsTheLogProbabilities(int vocabulary, float scale, int threads)
    {
        FakeModel model = new(vocabulary, 12, seed: 1, scale: scale);
        int[] tokens = FakeModel.RandomTokens((Window * 3) + 7, vocabulary, 20);
        string path = Save(model, tokens, new RunContext { Threads = threads });
        PlainLogitFile file = new(path);
        Assert.Equal((Window, vocabulary, 3), (file.Context, file.Vocabulary, file.Chunks));
        Assert.Equal(tokens[..(Window * 3)], file.Tokens);
        Assert.Equal(20 + (4 * 72) + (3L * 11 * ((2 * ((2 * ((vocabulary + 1) / 2)) + 4)))), new FileInfo(path).Length);
        int cut = 0;
        for (int chunk = 0; chunk < 3; chunk++)
        {
            float[][] logits = model.AllLogits(tokens[(chunk * Window)..((chunk + 1) * Window)]);
            for (int i = 0; i < 11; i++)
            {
                double[] exact = Naive.LogSoftmax(logits[12 + i]), stored = file.LogProbabilities[chunk][i];
                double step = file.Scales[chunk][i], top = exact.Max(), least = Math.Max(exact.Min(), top - 16);
                Assert.Equal((top - least) / 65535, step, 1e-9);
                for (int id = 0; id < vocabulary; id++)
                {
                    Assert.Equal(Math.Max(exact[id], least), stored[id], (0.5 * step) + 1e-5);
                    if (exact[id] < least) cut++;
                }
            }
        }

        Assert.Equal(scale > 10, cut > 0);
    }

    [Fact]
    public void EqualLogitsHaveNoScale()
    {
        PlainLogitFile file = new(Save(new FakeModel(64, 4, seed: 1) { Override = static (_, _, _) => 2.5f }, FakeModel.RandomTokens(Window * 2, 64, 5)));
        Assert.All(file.Scales.SelectMany(row => row), scale => Assert.Equal(0, scale));
        Assert.All(file.LogProbabilities.SelectMany(chunk => chunk).SelectMany(row => row), value => Assert.Equal(-Math.Log(64), value, 1e-6));
    }

    [Fact]
    public void TheFileDoesNotDependOnThreadsOrChunks()
    {
        int[] tokens = FakeModel.RandomTokens(Window * 3, Vocabulary, 20);
        byte[] one = File.ReadAllBytes(Save(Base(), tokens, new RunContext { Threads = 1 }, "one")), three = File.ReadAllBytes(Save(Base(), tokens, new RunContext { Threads = 3 }, "three", logitBytes: 1));
        Assert.Equal(one, three);
    }

    [Fact]
    public void FiguresFromTheFileAreLlamaPerplexitys()
    {
        int[] tokens = FakeModel.RandomTokens(Window * 4, Vocabulary, 20);
        string path = Save(Base(), tokens);
        PlainLogitFile plain = new(path);
        FakeModel candidate = Candidate();
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, path);
        ComparisonResult result = Compare(file, candidate, new RunOptions { LogitBytes = 5 * Vocabulary * 4 });
        List<double> baseLosses = [], candidateLosses = [], divergences = [];
        int same = 0;
        for (int chunk = 0; chunk < 4; chunk++)
        {
            int[] read = tokens[(chunk * Window)..((chunk + 1) * Window)];
            float[][] logits = candidate.AllLogits(read);
            for (int i = 0; i < 11; i++)
            {
                double[] p = plain.LogProbabilities[chunk][i], q = Naive.LogSoftmax(logits[12 + i]);
                baseLosses.Add(-p[read[13 + i]]);
                candidateLosses.Add(-q[read[13 + i]]);
                divergences.Add(PlainLogitFile.Divergence(p, q));
                if (Array.IndexOf(p, p.Max()) == Array.IndexOf(q, q.Max())) same++;
            }
        }

        Naive.Near(Math.Exp(Naive.Mean(baseLosses)), result.Base.Perplexity, 1e-6);
        Naive.Near(Math.Exp(Naive.Mean(candidateLosses)), result.Candidate.Perplexity, 1e-6);
        Assert.Equal(Naive.Mean(divergences), result.MeanKld, 1e-6);
        Assert.Equal(divergences.Max(), result.Kld.Max, 1e-6);
        Assert.Equal((double)same / 44, result.TopTokenAgreement);
        Assert.Equal(4, result.Chunks);
        foreach (WorstPosition place in result.WorstPositions)
        {
            double[] p = plain.LogProbabilities[place.Window][place.Position - 12];
            Naive.Near(Math.Exp(p[place.Expected.Id]), place.Expected.BaseProbability, 1e-5);
            Assert.All(place.BaseTop, token => Naive.Near(Math.Exp(p[token.Id]), token.Probability, 1e-5));
        }
    }

    /// <summary>16 nats in 65535 steps: what is lost is far below what is measured.</summary>
    [Fact]
    public void FiguresFromTheFileAreNearlyTheExactOnes()
    {
        int[] tokens = FakeModel.RandomTokens(Window * 8, Vocabulary, 20);
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, Save(Base(), tokens));
        ComparisonResult found = Compare(file, Candidate(), new RunOptions());
        ComparisonResult exact = ComparisonRun.Run(Base(), Candidate(), WindowPlan.Create(tokens, new WindowOptions { Context = Window }, "text"), Decode, new RunOptions());
        Naive.Near(exact.Base.Perplexity, found.Base.Perplexity, 1e-4);
        Assert.Equal(exact.Candidate, found.Candidate);
        Assert.Equal(exact.MeanKld, found.MeanKld, 1e-4);
        Assert.Equal(exact.Kld.P99, found.Kld.P99, 5e-4);
        Assert.Equal(exact.TopTokenAgreement, found.TopTokenAgreement, 0.03);
    }

    [Fact]
    public void AModelAgainstItsOwnFileDiffersByRoundingAlone()
    {
        int[] tokens = FakeModel.RandomTokens(Window * 8, Vocabulary, 20);
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, Save(Base(), tokens));
        ComparisonResult result = Compare(file, Base(), new RunOptions());
        Assert.InRange(result.MeanKld, -1e-4, 1e-4);
        Assert.Equal(1, result.PerplexityRatio, 1e-4);
    }

    [Fact]
    public void ThreadsChunksAndWidthsDoNotChangeTheResult()
    {
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, Save(Base(), FakeModel.RandomTokens(Window * 4, Vocabulary, 20)));
        string Document(RunOptions options) => System.Text.Json.JsonSerializer.Serialize(Compare(file, Candidate(), options) with { Seconds = 0 }, ValidationJson.Default.ComparisonResult);
        string reference = Document(new RunOptions { Threads = 1, Level = SimdLevel.Scalar });
        foreach (SimdLevel level in Simd.Available)
        {
            foreach (long bytes in new long[] { 1, 4 * Vocabulary * 4, 32 << 20 }) Assert.Equal(reference, Document(new RunOptions { Threads = 3, Level = level, LogitBytes = bytes }));
        }
    }

    [Fact]
    public void SomeOfTheWindowsCanBeTaken()
    {
        int[] tokens = FakeModel.RandomTokens(Window * 6, Vocabulary, 20);
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, Save(Base(), tokens));
        foreach (WindowSampling sampling in Enum.GetValues<WindowSampling>())
        {
            WindowOptions options = new() { Context = Window, Chunks = 3, Sampling = sampling };
            ComparisonResult exact = ComparisonRun.Run(Base(), Candidate(), WindowPlan.Create(tokens, options, "text"), Decode, new RunOptions());
            ComparisonResult found = ComparisonRun.Run(file, Candidate(), file.Plan(options), Decode, new RunOptions());
            Assert.Equal((exact.Candidate, exact.Chunks), (found.Candidate, found.Chunks));
            Assert.Equal(exact.MeanKld, found.MeanKld, 1e-4);
        }
    }

    [Fact]
    public void EveryRuleHasItsCases()
    {
        int[] tokens = FakeModel.RandomTokens(Window * 4, Vocabulary, 20);
        byte[] whole = File.ReadAllBytes(Save(Base(), tokens, name: "whole"));
        byte[] spread = File.ReadAllBytes(Save(Base(), tokens, name: "spread", options: new WindowOptions { Context = Window, Chunks = 3, Sampling = WindowSampling.Spread }));
        int record = 20 + (4 * tokens.Length);
        RuleCase[] cases =
        [
            Case(LogitRules.Whole, "as written", null, whole, file => file.Layout),
            Refused("nothing", []),
            Refused("another magic", [.. "_logitz_"u8, .. whole.AsSpan(8)]),
            Refused("a magic alone", whole[..8]),
            Refused("a cut header", whole[..19]),
            Refused("cut tokens", whole[..25]),
            Refused("a cut record", whole[..^1]),
            Refused("a byte more", [.. whole, 0]),
            Refused("a context of 2", Edit(whole, 8, 2)),
            Refused("a negative context", Edit(whole, 8, -Window)),
            Refused("no vocabulary", Edit(whole, 12, 0)),
            Refused("a vast vocabulary", Edit(whole, 12, int.MaxValue)),
            Refused("no chunks", Edit(whole, 16, 0)),
            Refused("a chunk more", Edit(whole, 16, 5)),
            Refused("vast chunks", Edit(Edit(whole, 16, int.MaxValue), 8, int.MaxValue)),
            Refused("a token beyond the vocabulary", Edit(whole, 24, Vocabulary)),
            Refused("a negative token", Edit(whole, 24, -1)),
            Case(LogitRules.Belongs, "the text's tokens", null, whole, file => Tokens(file, tokens)),
            Case(LogitRules.Belongs, "the text's tokens, spread", null, spread, file => Tokens(file, tokens)),
            Case(LogitRules.Belongs, "another token", ErrorKind.InvalidInput, whole, file => Tokens(file, [tokens[0], (tokens[1] + 1) % Vocabulary, .. tokens[2..]])),
            Case(LogitRules.Belongs, "a shorter text", ErrorKind.InvalidInput, whole, file => Tokens(file, tokens[..^1])),
            Case(LogitRules.Belongs, "another context", ErrorKind.InvalidInput, whole, file => file.Plan(new WindowOptions { Context = Window + 1 })),
            Case(LogitRules.Belongs, "another vocabulary", ErrorKind.InvalidInput, whole, file => Compare(file, new FakeModel(Vocabulary + 1, 12, seed: 1), new RunOptions())),
            Case(LogitRules.Distributions, "as written", null, whole, file => Compare(file, Candidate(), new RunOptions())),
            Case(LogitRules.Distributions, "a scale that is no number", ErrorKind.InvalidInput, Edit(whole, record, BitConverter.SingleToInt32Bits(float.NaN)), file => Compare(file, Candidate(), new RunOptions())),
            Case(LogitRules.Distributions, "an infinite scale", ErrorKind.InvalidInput, Edit(whole, record, BitConverter.SingleToInt32Bits(float.PositiveInfinity)), file => Compare(file, Candidate(), new RunOptions())),
            Case(LogitRules.Distributions, "zeros", ErrorKind.InvalidInput, [.. whole.AsSpan(0, record), .. new byte[whole.Length - record]], file => Compare(file, Candidate(), new RunOptions())),
            Case(LogitRules.Distributions, "a record moved by two bytes", ErrorKind.InvalidInput, [.. whole.AsSpan(0, record), .. whole.AsSpan(record + 2), 0, 0], file => Compare(file, Candidate(), new RunOptions())),
        ];
        RuleCase.CheckCoverage(cases, LogitRules.All, []);
        foreach (RuleCase item in cases) item.Check();

        static object Tokens(LogitFile file, int[] tokens)
        {
            file.RequireTokensOf(tokens, "text");
            return file;
        }

        RuleCase Refused(string name, byte[] bytes) => Case(LogitRules.Whole, name, ErrorKind.InvalidInput, bytes, file => file);
    }

    [Fact]
    public void OtherPositionsAreAUsageError()
    {
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, Save(Base(), FakeModel.RandomTokens(Window * 2, Vocabulary, 20)));
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => file.Plan(new WindowOptions { Context = Window, Protocol = ScoringProtocol.Full })).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => file.Plan(new WindowOptions { Context = Window, Chunks = 0 })).Kind);
    }

    [Fact]
    public void ADamagedRecordIsNamedByItsPlace()
    {
        byte[] whole = File.ReadAllBytes(Save(Base(), FakeModel.RandomTokens(Window * 4, Vocabulary, 20), name: "whole"));
        int recordBytes = 4 + 4 + (2 * 402), place = 20 + (4 * Window * 4) + (((2 * 11) + 5) * recordBytes);
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, _folder.Write("damaged", Edit(whole, place + 4, BitConverter.SingleToInt32Bits(3))));
        QuantException error = Assert.Throws<QuantException>(() => Compare(file, Candidate(), new RunOptions()));
        Assert.Equal(place, error.ByteOffset);
        Assert.Contains("window 2, position 17", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void NonFiniteLogitsAreTheCandidates()
    {
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, Save(Base(), FakeModel.RandomTokens(Window * 4, Vocabulary, 20)));
        FakeModel broken = new(Vocabulary, 12, seed: 1) { Override = (window, position, token) => window == 1 && position == 13 && token == 5 ? float.NaN : null };
        QuantException error = Assert.Throws<QuantException>(() => Compare(file, broken, new RunOptions()));
        Assert.Contains("the candidate's logits", error.Message, StringComparison.Ordinal);
        Assert.Contains("window 1, position 13", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void NothingIsPublishedOfARunThatFails()
    {
        FakeModel broken = new(Vocabulary, 12, seed: 1) { Override = (window, position, token) => window == 2 && token == 5 ? float.NaN : null };
        Assert.Throws<QuantException>(() => Save(broken, FakeModel.RandomTokens(Window * 4, Vocabulary, 20)));
        Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
    }

    /// <summary>Every call to the disk fails once: a file has its name only when it is whole.</summary>
    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void FaultsOfTheDiskPublishNothingHalf(Fault fault)
    {
        int[] tokens = FakeModel.RandomTokens(Window * 2, Vocabulary, 20);
        byte[] expected = File.ReadAllBytes(Save(Base(), tokens, name: "expected"));
        int refused = 0;
        bool struck = true;
        for (int call = 0; struck; call++)
        {
            FaultyFileLayer files = new(DiskFileLayer.Instance, call, fault);
            Exception? failure = Record.Exception(() => Save(Base(), tokens, new RunContext { Files = files }, "out"));
            Assert.True(failure is null or QuantException, $"call {call}: {failure}");
            string path = _folder.File("out");
            if (File.Exists(path)) Assert.Equal(expected, File.ReadAllBytes(path));
            else Assert.NotNull(failure);
            if (failure is not null) refused++;
            File.Delete(path);
            struck = files.Struck;
        }

        Assert.Equal(fault != Fault.ShortRead, refused > 0);
    }

    private static FakeModel Base() => new(Vocabulary, 12, seed: 1, scale: 0.3f);

    private static FakeModel Candidate() => new(Vocabulary, 12, seed: 1, noise: 0.1f, scale: 0.3f);

    private static ComparisonResult Compare(LogitFile file, FakeModel candidate, RunOptions options) =>
        ComparisonRun.Run(file, candidate, file.Plan(new WindowOptions { Context = Window }), Decode, options);

    private static string Decode(IReadOnlyList<int> tokens) => string.Join(' ', tokens);

    private static byte[] Edit(byte[] bytes, int offset, int value)
    {
        byte[] edited = [.. bytes];
        BitConverter.TryWriteBytes(edited.AsSpan(offset), value);
        return edited;
    }

    private RuleCase Case(Rule rule, string name, ErrorKind? refusal, byte[] bytes, Func<LogitFile, object> use) => new(rule, name, refusal, () =>
    {
        using LogitFile file = LogitFile.Open(DiskFileLayer.Instance, _folder.Write("case", bytes));
        return use(file);
    });

    private string Save(FakeModel model, int[] tokens, RunContext? context = null, string name = "base.kld", long logitBytes = 32 << 20, WindowOptions? options = null)
    {
        EvaluationText text = new("no such file", "text");
        WindowPlan windows = WindowPlan.Create(tokens, options ?? new WindowOptions { Context = Window }, text.Name);
        using LogitRecording recording = LogitRecording.Begin(model, [], text, windows, new LogitTarget(_folder.File(name)), context ?? new RunContext());
        PerplexityRun.Run(recording, windows, new RunOptions { LogitBytes = logitBytes });
        recording.Publish();
        return _folder.File(name);
    }
}
