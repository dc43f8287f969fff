using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Rules;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Statistics from collecting to the bytes that they change.</summary>
public sealed class CalibrationTests : IDisposable
{
    private static readonly CalibrationOptions Short = new() { Samples = 3, Context = 64 };

    /// <summary>More experts than two short windows reach.</summary>
    private static readonly Qwen2Config ManyExperts = TestCheckpoint.Small with
    {
        IsMoe = true, NumExperts = 64, NumExpertsPerTok = 1, MoeIntermediateSize = 32, SharedExpertIntermediateSize = 32, NumHiddenLayers = 1, MaxWindowLayers = 1,
    };

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void EveryRuleHasItsCases()
    {
        Imatrix tiny = Collect("builtin:tiny", Short);
        Imatrix Edit(Func<ImatrixEntry, ImatrixEntry?> edit) => tiny with { Entries = [.. tiny.Entries.Select(edit).OfType<ImatrixEntry>()] };
        Imatrix mixture = Collect(Mixture(), new CalibrationOptions { Samples = 2, Context = 16 });
        RuleCase[] cases =
        [
            new(StatisticsRules.InactiveChannels, "channels of zeros", null, EncodeWithInactiveChannels),
            new(StatisticsRules.Damping, "indefinite at any damping", ErrorKind.Numeric, () => (object)Factor(1e12f)),
            new(StatisticsRules.Damping, "indefinite, and damped until it is not", null, () => (object)Factor(2)),
            new(StatisticsRules.Usable, "other names", ErrorKind.InvalidInput, () => Take(Edit(entry => entry with { Name = "x." + entry.Name }))),
            new(StatisticsRules.Usable, "a layer more", ErrorKind.InvalidInput, () => Take(Edit(entry => entry with { Name = entry.Name.Replace("blk.1.", "blk.9.", StringComparison.Ordinal) }))),
            new(StatisticsRules.Usable, "experts", ErrorKind.InvalidInput, () => Take(mixture)),
            new(StatisticsRules.Usable, "another width", ErrorKind.InvalidInput, () => Take(Edit(entry => entry with { Sums = [.. entry.Sums, 1] }))),
            new(StatisticsRules.Usable, "its own, one tensor missing", null, () => Take(Edit(entry => entry.Name == "blk.0.attn_q.weight" ? null : entry))),
            new(StatisticsRules.Usable, "another output more", null, () => Take(Edit(entry => entry.Name == "blk.0.attn_q.weight" ? entry with { Name = "output.weight" } : entry))),
            new(StatisticsRules.Usable, "an embedding of another length", null, () => Take(Edit(entry => entry.Name == "blk.0.attn_q.weight" ? entry with { Name = "token_embd.weight", Sums = [1] } : entry))),
            new(StatisticsRules.ExpertsSeen, "an expert without tokens, strict", ErrorKind.Substitution, () => Take(mixture, Mixture(), strict: true)),
            new(StatisticsRules.ExpertsSeen, "an expert without tokens", null, () => Take(mixture, Mixture())),
            new(StatisticsRules.ExpertsSeen, "no experts, strict", null, () => Take(tiny, strict: true)),
        ];
        RuleCase.CheckCoverage(cases, StatisticsRules.All, [StatisticsRules.InactiveChannels]);
        foreach (RuleCase item in cases) item.Check();
    }

    /// <summary>A Hessian of ones on the diagonal and <paramref name="product"/> beside it.</summary>
    private static double Factor(float product)
    {
        GramMatrix gram = new(32);
        gram.AddSums(1, (row, sums) =>
        {
            sums.AsSpan(0, row).Fill(product);
            sums[row] = 1;
        });
        using GptqHessian hessian = new("w", gram, 1, new GptqOptions(), new WorkerTeam(1));
        Assert.InRange(hessian.Damping, 1, 1000);
        return hessian.Damping;
    }

    [Fact]
    public void TheFileDependsNeitherOnThreadsNorOnTheContainer()
    {
        Conversions.ToGguf("builtin:tiny", _folder.File("model.gguf"));
        byte[] one = Calibrate("builtin:tiny", "one.gguf", threads: 1), three = Calibrate("builtin:tiny", "three.gguf", threads: 3), gguf = Calibrate(_folder.File("model.gguf"), "gguf.gguf", threads: 2);
        Assert.Equal(one, three);
        Assert.Equal(one, gguf);
    }

    [Fact]
    public void EveryMatrixOfTheLayersHasAnEntryAndTheOutputWhenAskedFor()
    {
        using Checkpoint checkpoint = Checkpoint.Open("builtin:tiny", new RunContext());
        string[] layers = [.. GgufNames.Plan(checkpoint.Tensors.Catalogue).Where(tensor => tensor.Shape.Rank == 2 && tensor.Name != "token_embd.weight").Select(tensor => tensor.Name).Order(StringComparer.Ordinal)];
        Imatrix plain = Collect("builtin:tiny", Short), withOutput = Collect("builtin:tiny", Short with { ProcessOutput = true });
        Assert.Equal(layers, plain.Entries.Select(entry => entry.Name));
        Assert.Equal([.. layers, "token_embd.weight"], withOutput.Entries.Select(entry => entry.Name));
        Assert.All(withOutput.Entries, entry => Assert.Equal([3 * 64L], entry.Counts));
        Assert.Equal(plain.Entries.Single(entry => entry.Name == "blk.0.attn_q.weight").Sums, plain.Entries.Single(entry => entry.Name == "blk.0.attn_v.weight").Sums);
    }

    [Fact]
    public void HalvesAddUpToTheWhole()
    {
        using Checkpoint checkpoint = Checkpoint.Open(Mixture(), new RunContext());
        int[] tokens = [.. Enumerable.Range(0, 256).Select(i => (i * 37) % 2000)];
        Imatrix whole = Run(0, 256), merged = Imatrix.Merge([(Run(0, 128), "first"), (Run(128, 128), "second")]);
        foreach ((ImatrixEntry a, ImatrixEntry b) in whole.Entries.Zip(merged.Entries))
        {
            Assert.Equal(a.Name, b.Name);
            Assert.Equal(a.Counts, b.Counts);
            Assert.Equal(a.Sums, b.Sums, (x, y) => Math.Abs(x - y) <= 2e-7f * x);
        }

        Imatrix Run(int first, int count)
        {
            DiagonalCollector collector = new(2);
            LoadedModel model = new(checkpoint, new RunContext()) { Observer = collector };
            for (int window = 0; window < count; window += 32) model.Forward(tokens.AsSpan(first + window, 32), new float[32 * model.HiddenSize]);
            return new Imatrix(collector.Entries(checkpoint.Tensors.Catalogue, processOutput: true), [], count / 32, 32);
        }
    }

    [Fact]
    public void ThePerplexityIsThatOfTheSameWindows()
    {
        RunContext context = new();
        using Checkpoint checkpoint = Checkpoint.Open("builtin:tiny", context);
        EvaluationText text = EvaluationText.Load(DiskFileLayer.Instance, "builtin:calibration", Stream.Null);
        (_, PerplexityResult figure) = DiagonalCalibration.Collect(checkpoint, text, Short, context);
        PerplexityResult expected = Proof.Perplexity(checkpoint, text, new WindowOptions { Context = 64, Chunks = 3, Sampling = WindowSampling.Spread }, context);
        Assert.Equal(expected.Perplexity, figure.Perplexity);
        Assert.Empty(context.Events.Events);
    }

    [Fact]
    public void AShortTextIsUsedWholeWithAnEvent()
    {
        RunContext context = new();
        using Checkpoint checkpoint = Checkpoint.Open("builtin:tiny", context);
        EvaluationText text = new("short", string.Concat(Enumerable.Repeat("It was a dark and stormy night. ", 40)));
        (Imatrix imatrix, _) = DiagonalCalibration.Collect(checkpoint, text, Short with { Samples = 128 }, context);
        Assert.InRange(imatrix.ChunkCount, 2, 127);
        Assert.Equal("calibration-windows", Assert.Single(context.Events.Events).Code);
    }

    [Fact]
    public void ExpertsWithoutTokensAreListedAndWeighAlike()
    {
        RunContext context = new();
        using Checkpoint checkpoint = Checkpoint.Open(Mixture(), context);
        Imatrix imatrix = Collect(Mixture(), new CalibrationOptions { Samples = 2, Context = 16 });
        Importance importance = Importance.Create(imatrix, checkpoint.Tensors.Catalogue, null, ImportanceFilter.All, strict: false, context);
        ImatrixEntry stack = imatrix.Entries.Single(entry => entry.Name == "blk.0.ffn_up_exps.weight");
        Assert.Equal(32, stack.Counts.Sum());
        int unseen = Array.IndexOf(stack.Counts, 0), seen = Array.FindIndex(stack.Counts, count => count > 0);
        Assert.All(importance.Weights(stack.Name, unseen, 64).ToArray(), weight => Assert.Equal(1, weight));
        Assert.Equal(stack.Sums.AsSpan(seen * 64, 64).ToArray().Select(sum => sum / stack.Counts[seen]), importance.Weights(stack.Name, seen, 64).ToArray());
        Assert.Equal(0, importance.TokensSeen(stack.Name));
        QuantEvent[] events = [.. context.Events.Events];
        Assert.Equal(3, events.Length);
        Assert.All(events, item => Assert.Equal(("experts-unseen", true), (item.Code, item.IsSubstitution)));
        Assert.Contains($" {unseen}", events.Single(item => item.Tensor == stack.Name).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ImportanceChangesTheCodesOfItsTensorsAndIsRecorded()
    {
        Imatrix imatrix = Collect("builtin:tiny", Short);
        Conversions.Quantize("builtin:tiny", _folder.File("plain.gguf"), "Q4_0");
        ConversionReport report = Conversions.Quantize("builtin:tiny", _folder.File("weighed.gguf"), "Q4_0", quantization: new QuantizationOptions { Importance = Create(imatrix, new ImportanceFilter(["attn_v", "ffn_down"], []), "some/imatrix.gguf") });
        using GgufFile plain = Open("plain.gguf"), weighed = Open("weighed.gguf");
        foreach (TensorEntry tensor in weighed.Tensors)
        {
            bool expected = tensor.Name.EndsWith("attn_v.weight", StringComparison.Ordinal) || tensor.Name.EndsWith("ffn_down.weight", StringComparison.Ordinal);
            Assert.Equal(expected, !Raw(plain, tensor.Name).AsSpan().SequenceEqual(Raw(weighed, tensor.Name)));
            Assert.Equal(expected ? 3 * 64L : null, report.Tensors.Single(item => item.Name == tensor.Name).TokensSeen);
            Assert.Equal(!expected && tensor.Type.IsQuantized, report.Events.Any(item => item.Code == "imatrix-missing" && item.Tensor == tensor.Name));
        }

        Assert.Equal(
            ["quantize.imatrix.file", "quantize.imatrix.dataset", "quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"],
            weighed.Metadata.Select(pair => pair.Key).Where(key => key.StartsWith("quantize.", StringComparison.Ordinal)));
        Assert.Equal(GgufValue.Scalar(6u), weighed.Metadata.Find("quantize.imatrix.entries_count"));
        Assert.Equal(GgufValue.Scalar(3u), weighed.Metadata.Find("quantize.imatrix.chunks_count"));
        Assert.Equal("some/imatrix.gguf", weighed.Metadata.Find("quantize.imatrix.file")!.GetString());
        Assert.Equal("builtin:calibration", weighed.Metadata.Find("quantize.imatrix.dataset")!.GetString());
    }

    [Fact]
    public void FiltersTakeNamesThatHoldATextOrDoNot()
    {
        Assert.True(new ImportanceFilter([], []).Takes("blk.0.attn_q.weight"));
        Assert.True(new ImportanceFilter(["ffn", "attn_q"], []).Takes("blk.0.attn_q.weight"));
        Assert.False(new ImportanceFilter(["ffn", "attn_k"], []).Takes("blk.0.attn_q.weight"));
        Assert.False(new ImportanceFilter([], ["ffn", "attn_q"]).Takes("blk.0.attn_q.weight"));
    }

    private static byte[] EncodeWithInactiveChannels()
    {
        const int rowLength = 512;
        Random random = new(9);
        float[] row = [.. Enumerable.Range(0, rowLength).Select(_ => (float)(random.NextDouble() - 0.5))];
        float[] some = [.. Enumerable.Range(0, rowLength).Select(i => i % 3 == 0 || i is >= 32 and < 96 || i >= 256 ? 0 : 1f)];
        float[] decoded = new float[rowLength];
        foreach (ElementType type in GgmlTypes.All.Select(type => type.Element).Where(type => type is { CanEncode: true, IsQuantized: true }))
        {
            foreach (float[] importance in new[] { some, new float[rowLength] })
            {
                foreach (Effort effort in Enum.GetValues<Effort>())
                {
                    byte[] blocks = new byte[type.ByteCount(rowLength)];
                    type.EncodeRow(row, importance, effort, blocks);
                    type.Decode(blocks, decoded);
                    Assert.All(decoded, value => Assert.True(float.IsFinite(value) && Math.Abs(value) < 2, $"{type} {effort}: {value}"));
                }
            }
        }

        return [];
    }

    private string Mixture() => Directory.Exists(_folder.File("mixture")) ? _folder.File("mixture") : TestCheckpoint.Write(_folder.File("mixture"), ManyExperts);

    private static Imatrix Collect(string model, CalibrationOptions options)
    {
        RunContext context = new();
        using Checkpoint checkpoint = Checkpoint.Open(model, context);
        return DiagonalCalibration.Collect(checkpoint, EvaluationText.Load(DiskFileLayer.Instance, "builtin:calibration", Stream.Null), options, context).Imatrix;
    }

    private static Importance Take(Imatrix imatrix, string model = "builtin:tiny", bool strict = false)
    {
        using Checkpoint checkpoint = Checkpoint.Open(model, new RunContext());
        return Importance.Create(imatrix, checkpoint.Tensors.Catalogue, "x", ImportanceFilter.All, strict, new RunContext());
    }

    private static Importance Create(Imatrix imatrix, ImportanceFilter filter, string path)
    {
        using Checkpoint checkpoint = Checkpoint.Open("builtin:tiny", new RunContext());
        return Importance.Create(imatrix, checkpoint.Tensors.Catalogue, path, filter, strict: false, new RunContext());
    }

    private byte[] Calibrate(string model, string output, int threads)
    {
        RunContext context = new() { Threads = threads };
        using Checkpoint checkpoint = Checkpoint.Open(model, context);
        EvaluationText text = EvaluationText.Load(DiskFileLayer.Instance, "builtin:calibration", Stream.Null);
        CalibrationReport report = new CalibrationJob(_folder.File(output), ImatrixFormat.Gguf, []).Run(checkpoint, text, Short, context);
        byte[] bytes = File.ReadAllBytes(_folder.File(output));
        Assert.Equal(bytes.Length, report.Bytes);
        return bytes;
    }

    private GgufFile Open(string name) => GgufFile.Open(DiskFileLayer.Instance, _folder.File(name), new ReadOptions());

    private static byte[] Raw(GgufFile file, string name)
    {
        TensorEntry entry = file.Find(name)!;
        byte[] bytes = new byte[entry.ByteLength];
        file.ReadRaw(entry, 0, bytes);
        return bytes;
    }
}
