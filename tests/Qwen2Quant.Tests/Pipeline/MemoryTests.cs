using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Measurements within little memory: the digits of those in memory, and a disk that fails.</summary>
public sealed class MemoryTests : IDisposable
{
    private static readonly WindowOptions Windows = new() { Context = 64, Chunks = 40 };

    private static readonly EvaluationText Text = EvaluationText.Load(DiskFileLayer.Instance, "builtin:text", Stream.Null);

    private static readonly Qwen2Config Dense = TestCheckpoint.Small with { HiddenSize = 128, IntermediateSize = 512, NumHiddenLayers = 6, NumAttentionHeads = 8, MaxWindowLayers = 6, TieWordEmbeddings = false };

    private static readonly Qwen2Config Mixture = Dense with { IsMoe = true, NumExperts = 8, NumExpertsPerTok = 2, MoeIntermediateSize = 64, SharedExpertIntermediateSize = 96 };

    private readonly TempFolder _folder = new();
    private readonly ITestOutputHelper _print;

    public MemoryTests(ITestOutputHelper print)
    {
        _print = print;
        Directory.CreateDirectory(TemporaryFolder);
    }

    private string TemporaryFolder => _folder.File("tmp");

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void PerplexityComparisonAndStatisticsHaveTheSameDigits(bool isMixture)
    {
        string model = TestCheckpoint.Write(_folder.File("model"), isMixture ? Mixture : Dense), candidate = _folder.File("candidate.gguf");
        Conversions.Quantize(model, candidate, "Q4_0");
        using Checkpoint source = Checkpoint.Open(model, new RunContext()), quantized = Checkpoint.Open(candidate, new RunContext());
        CalibrationOptions calibration = new() { Samples = 40, Context = 64, ProcessOutput = true };
        (Imatrix sums, PerplexityResult expected) = DiagonalCalibration.Collect(source, Text, calibration, Context());
        PerplexityResult perplexity = Proof.Perplexity(source, Text, Windows, Context());
        ComparisonResult comparison = Proof.Compare(source, quantized, Text, Windows, Context());
        foreach ((bool spills, bool holdsLayer) in new[] { (false, true), (true, true), (true, false) })
        {
            RunContext context = Context() with { MemoryBytes = Budget(spills, holdsLayer, source) };
            Assert.Equal(perplexity with { Seconds = 0 }, Proof.Perplexity(source, Text, Windows, context) with { Seconds = 0 });
            context = Context() with { MemoryBytes = Budget(spills, holdsLayer, source) + DiagonalCollector.ByteCount(source.Tensors.Catalogue) };
            (Imatrix found, PerplexityResult figure) = DiagonalCalibration.Collect(source, Text, calibration, context);
            Assert.Equal(expected with { Seconds = 0, Activations = null }, figure with { Seconds = 0, Activations = null });
            Assert.Equal(expected.Activations, figure.Activations);
            Assert.Equal("layer-by-layer", Assert.Single(context.Events.Events).Code);
            foreach ((ImatrixEntry a, ImatrixEntry b) in sums.Entries.Zip(found.Entries))
            {
                Assert.Equal((a.Name, a.Sums.Length), (b.Name, b.Sums.Length));
                Assert.Equal(a.Sums, b.Sums);
                Assert.Equal(a.Counts, b.Counts);
            }

            context = Context() with { MemoryBytes = Budget(spills, holdsLayer, source, quantized) };
            ComparisonResult compared = Proof.Compare(source, quantized, Text, Windows, context);
            Assert.Equal((comparison.Base, comparison.Candidate, comparison.MeanKld, comparison.Kld), (compared.Base, compared.Candidate, compared.MeanKld, compared.Kld));
            Assert.Equal(comparison.WorstPositions.Select(worst => (worst.Window, worst.Position, worst.Kld)), compared.WorstPositions.Select(worst => (worst.Window, worst.Position, worst.Kld)));
            Assert.Equal("layer-by-layer", Assert.Single(context.Events.Events).Code);
        }

        Assert.Equal([], Directory.GetFileSystemEntries(TemporaryFolder));
    }

    /// <summary>Touches of the states' file fail, each once: the first, the last, and some of those between, which are alike.</summary>
    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.AccessDenied)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void AStateFileThatFailsIsATypedError(Fault fault)
    {
        using Checkpoint source = Checkpoint.Open(TestCheckpoint.Write(_folder.File("model"), Dense), new RunContext());
        RunContext context = Context() with { MemoryBytes = Budget(true, true, source) };
        FaultyFileLayer sound = new(DiskFileLayer.Instance, int.MaxValue, fault);
        double expected = Proof.Perplexity(source, Text, Windows, context with { Files = sound }).Perplexity;
        int[] calls = [.. sound.Log.Select((line, index) => (line, index)).Where(call => call.line.Contains("scratch", StringComparison.Ordinal) || call.line.Contains(" free ", StringComparison.Ordinal)).Select(call => call.index)];
        Assert.True(calls.Length > 30);
        int refused = 0, injected = 0;
        foreach (int call in calls.Where((_, index) => index < 6 || index >= calls.Length - 6 || index % 16 == 0))
        {
            FaultyFileLayer files = new(DiskFileLayer.Instance, call, fault);
            double found = double.NaN;
            Exception? failure = Record.Exception(() => found = Proof.Perplexity(source, Text, Windows, context with { Files = files }).Perplexity);
            string where = $"call {call} ({sound.Log[call]}) with {fault}: {failure}";
            bool benign = fault == Fault.ShortRead || (fault == Fault.Truncated && !sound.Log[call].Contains("scratch-read", StringComparison.Ordinal));
            if (benign) Assert.True(found == expected, where);
            else Assert.True(failure is QuantException { Kind: ErrorKind.Resource, Remedy: not null }, where);
            injected++;
            if (failure is not null) refused++;
            Assert.Equal([], Directory.GetFileSystemEntries(TemporaryFolder));
        }

        _print.WriteLine($"{fault}: {injected} faults injected, {refused} refused");
    }

    /// <summary>A folder on a file system without room for a file, as any machine has one.</summary>
    [Fact]
    public void AFullTemporaryFolderIsRefusedBeforeTheFirstToken()
    {
        if (!Directory.Exists("/proc/self")) return;
        using Checkpoint source = Checkpoint.Open(TestCheckpoint.Write(_folder.File("model"), Dense), new RunContext());
        RunContext context = Context() with { MemoryBytes = Budget(true, true, source), TemporaryFolder = "/proc" };
        QuantException error = Assert.Throws<QuantException>(() => Proof.Perplexity(source, Text, Windows, context));
        Assert.Equal((ErrorKind.Resource, "/proc", "0 bytes free"), (error.Kind, error.Path, error.Found));
        Assert.Contains("TMPDIR", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AnInterruptedRunLeavesNoFile()
    {
        using Checkpoint source = Checkpoint.Open(TestCheckpoint.Write(_folder.File("model"), Dense), new RunContext());
        using CancellationTokenSource cancellation = new();
        CancellingProgress progress = new(cancellation);
        RunContext context = Context() with { MemoryBytes = Budget(true, true, source), Cancellation = cancellation.Token, Progress = progress };
        Assert.Throws<OperationCanceledException>(() => Proof.Perplexity(source, Text, Windows, context));
        Assert.Equal("perplexity, layer by layer", progress.Title);
        Assert.Equal([], Directory.GetFileSystemEntries(TemporaryFolder));
    }

    private RunContext Context() => new() { Threads = 1, TemporaryFolder = TemporaryFolder };

    /// <summary>A number of bytes that lets a run keep so much and no more.</summary>
    private static long Budget(bool spills, bool holdsLayer, params Checkpoint[] checkpoints)
    {
        const long step = 20_000;
        Qwen2Model[] models = [.. checkpoints.Select(checkpoint => Qwen2Model.Load(checkpoint.Config, checkpoint.Tensors, new ForwardOptions { Threads = 1, ResidentBytes = 0 }))];
        WindowShape windows = new(Windows.Chunks!.Value, Windows.Context, (Windows.Context / 2) - 1);
        for (long bytes = 200_000_000; ; bytes -= step)
        {
            MemoryPlan plan = MemoryPlan.Decide(bytes, models, windows);
            if (!plan.IsWhole && plan.SpillsStates == spills && plan.HoldsLayer == holdsLayer) return bytes;
        }
    }

    private sealed class CancellingProgress(CancellationTokenSource cancellation) : Core.Running.IProgressSink, Core.Running.IProgressTask
    {
        public string? Title { get; private set; }

        public Core.Running.IProgressTask Start(string title, long total, string unit)
        {
            Title = title;
            return this;
        }

        public void Advance(long amount) => cancellation.Cancel();

        public void Dispose()
        {
        }
    }
}
