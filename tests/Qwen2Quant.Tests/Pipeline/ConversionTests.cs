using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

public sealed class ConversionTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("F32")]
    [InlineData("BF16")]
    [InlineData(null)]
    public void WideTypesKeepEveryValue(string? type)
    {
        string target = _folder.File("out.gguf");
        Conversions.ToGguf("builtin:tiny", target, type is null ? null : GgmlTypes.Find(type)!.Element);
        using Checkpoint source = Checkpoint.Open("builtin:tiny", new RunContext());
        using Checkpoint output = Checkpoint.Open(target, new RunContext());
        foreach (TensorEntry entry in source.Tensors.Tensors)
        {
            Assert.Equal(source.Tensors.ReadAll(entry), output.Tensors.ReadAll(output.Tensors.Find(entry.Name)!));
        }
    }

    [Fact]
    public void FolderToGgufAndBackIsTheSameFolder()
    {
        string original = TestCheckpoint.Write(_folder.File("original"), TestCheckpoint.Small);
        Conversions.ToGguf(original, _folder.File("middle.gguf"));
        Conversions.ToFolder(_folder.File("middle.gguf"), _folder.File("back"), PlainTypes.BF16, maxShardBytes: 60_000);
        Assert.True(File.Exists(_folder.File("back/model.safetensors.index.json")));
        using Checkpoint before = Checkpoint.Open(original, new RunContext());
        using Checkpoint after = Checkpoint.Open(_folder.File("back"), new RunContext());
        foreach (TensorEntry entry in before.Tensors.Tensors)
        {
            Assert.Equal(before.Tensors.ReadAll(entry), after.Tensors.ReadAll(after.Tensors.Find(entry.Name)!));
        }

        Assert.Equal(before.Config with { TransformersVersion = null, TorchDtype = null, EosTokenIds = [] }, after.Config with { TransformersVersion = null, TorchDtype = null, EosTokenIds = [] });
        Assert.Equal(before.Config.EosTokenIds, after.Config.EosTokenIds);
        const string text = "It's 12 o'clock, <|im_start|>né\u0301e\n\n  said the “cat”.";
        Assert.Equal(new BpeTokenizer(before.Tokenizer).Encode(text, true), new BpeTokenizer(after.Tokenizer).Encode(text, true));
        Assert.Equal(before.Tokenizer.ChatTemplate, after.Tokenizer.ChatTemplate);
    }

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q8_0")]
    public void BytesDoNotDependOnThreads(string recipe)
    {
        string[] targets = [.. Enumerable.Range(1, 3).Select(threads =>
        {
            string target = _folder.File($"{threads}.gguf");
            Conversions.Quantize("builtin:tiny", target, recipe, new RunContext { Threads = threads });
            return target;
        })];
        byte[] first = File.ReadAllBytes(targets[0]);
        Assert.All(targets, target => Assert.Equal(first, File.ReadAllBytes(target)));
    }

    [Fact]
    public void ErrorsInTheReportDoNotDependOnThreads()
    {
        ConversionReport one = Conversions.Quantize("builtin:tiny", _folder.File("1.gguf"), "Q5_1", new RunContext { Threads = 1 });
        ConversionReport three = Conversions.Quantize("builtin:tiny", _folder.File("3.gguf"), "Q5_1", new RunContext { Threads = 3 });
        Assert.Equal(one.Tensors.Select(tensor => tensor.Rmse), three.Tensors.Select(tensor => tensor.Rmse));
        Assert.All(one.Tensors.Where(tensor => tensor.Type == "Q5_1"), tensor => Assert.InRange(tensor.RelativeError!.Value, 0.01, 0.1));
    }

    [Fact]
    public void ADryRunPlansTheExactSizeAndWritesNothing()
    {
        string target = _folder.File("out.gguf");
        ConversionReport plan = Conversions.Quantize("builtin:tiny", target, "Q4_0", options: new ConversionOptions("gguf:Q4_0", DryRun: true));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path));
        Conversions.Quantize("builtin:tiny", target, "Q4_0");
        Assert.Equal(plan.Bytes, new FileInfo(target).Length);
    }

    [Fact]
    public void OneOfSeveralWeightFilesIsNamedByItsPath()
    {
        string folder = TestCheckpoint.Write(_folder.File("two"), TestCheckpoint.Small);
        File.Copy(Path.Combine(folder, "model.safetensors"), Path.Combine(folder, "other.safetensors"));
        Assert.Throws<QuantException>(() => Conversions.ToGguf(folder, _folder.File("folder.gguf")));
        Conversions.ToGguf(Path.Combine(folder, "other.safetensors"), _folder.File("file.gguf"));
    }

    [Fact]
    public void AnExistingOutputIsKeptUnlessForced()
    {
        string target = _folder.Write("out.gguf", "precious");
        QuantException error = Assert.Throws<QuantException>(() => Conversions.Quantize("builtin:tiny", target, "Q4_0"));
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.Equal("precious", File.ReadAllText(target));
        Conversions.Quantize("builtin:tiny", target, "Q4_0", options: new ConversionOptions("gguf:Q4_0", Force: true));
        Assert.Equal("GGUF"u8, File.ReadAllBytes(target).AsSpan(0, 4));
    }

    [Fact]
    public void AForcedFolderIsSwappedWhole()
    {
        string target = _folder.File("folder");
        _folder.Write("folder/leftover.txt", "x");
        using Checkpoint source = Checkpoint.Open("builtin:tiny", new RunContext());
        ConversionPlan plan = FolderPlanner.PlanConversion(source, PlainTypes.F16, "safetensors", target, long.MaxValue, new RunContext());
        new Conversion(source, plan, new ConversionOptions("safetensors", Force: true), new RunContext()).Run();
        Assert.False(File.Exists(_folder.File("folder/leftover.txt")));
        Assert.Equal(["folder"], Directory.EnumerateFileSystemEntries(_folder.Path).Select(Path.GetFileName));
    }

    [Fact]
    public void TheInputIsNeverTheOutput()
    {
        string path = _folder.File("model.gguf");
        Conversions.ToGguf("builtin:tiny", path);
        byte[] before = File.ReadAllBytes(path);
        ConversionOptions force = new("gguf:Q4_0", Force: true);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Conversions.Quantize(path, path, "Q4_0", options: force)).Kind);
        if (!OperatingSystem.IsWindows())
        {
            File.CreateSymbolicLink(_folder.File("link.gguf"), path);
            Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Conversions.Quantize(path, _folder.File("link.gguf"), "Q4_0", options: force)).Kind);
        }

        string folder = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Conversions.Quantize(folder, Path.Combine(folder, "out.gguf"), "Q4_0", options: force)).Kind);
        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Fact]
    public void RowsThatFitNoBlockFallBackWithAnEventThatStrictRefuses()
    {
        string odd = TestCheckpoint.Write(_folder.File("odd"), TestCheckpoint.Odd);
        QuantException error = Assert.Throws<QuantException>(() => Conversions.Quantize(odd, _folder.File("strict.gguf"), "Q6_K", options: new ConversionOptions("gguf:Q6_K", Strict: true)));
        Assert.Equal(ErrorKind.Substitution, error.Kind);
        Assert.False(File.Exists(_folder.File("strict.gguf")));

        RunContext context = new();
        ConversionReport report = Conversions.Quantize(odd, _folder.File("out.gguf"), "Q6_K", context);
        Assert.Contains(report.Tensors, tensor => tensor is { Type: "F16", RequestedType: "Q6_K" });
        Assert.Contains(context.Events.Events, planned => planned is { Code: "type-fallback", IsSubstitution: true });
    }

    [Fact]
    public void OverridesWinOverTheMixture()
    {
        RecipeOptions options = new() { TensorTypes = [TensorTypeOverride.Parse("blk\\.1\\.ffn_.*=Q8_0"), TensorTypeOverride.Parse("ffn=Q5_0")], EmbeddingType = PlainTypes.F16 };
        ConversionReport report = Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "Q4_0", quantization: new QuantizationOptions { Types = options });
        Dictionary<string, string> types = report.Tensors.ToDictionary(tensor => tensor.Name, tensor => tensor.Type);
        Assert.Equal("Q8_0", types["blk.1.ffn_up.weight"]);
        Assert.Equal("Q5_0", types["blk.0.ffn_up.weight"]);
        Assert.Equal("Q4_0", types["blk.0.attn_q.weight"]);
        Assert.Equal("F16", types["token_embd.weight"]);
        Assert.Equal("F32", types["blk.1.ffn_norm.weight"]);
    }

    [Fact]
    public void RequantizingNeedsPermission()
    {
        Conversions.Quantize("builtin:tiny", _folder.File("q8.gguf"), "Q8_0");
        Assert.Equal(Qwen2Quant.Pipeline.PipelineRules.SourceNotQuantized, Assert.Throws<QuantException>(() => Conversions.Quantize(_folder.File("q8.gguf"), _folder.File("q4.gguf"), "Q4_0")).Rule);
        RunContext context = new();
        Conversions.Quantize(_folder.File("q8.gguf"), _folder.File("q4.gguf"), "Q4_0", context, quantization: new QuantizationOptions { AllowRequantize = true });
        Assert.Contains(context.Events.Events, planned => planned.Code == "requantized");
        ConversionReport copy = Conversions.Quantize(_folder.File("q8.gguf"), _folder.File("copy.gguf"), "Q8_0");
        Assert.All(copy.Tensors.Where(tensor => tensor.Type == "Q8_0"), tensor => Assert.Equal("copy", tensor.Solver));
    }

    [Fact]
    public void AnInterruptedRunPublishesNothing()
    {
        using CancellationTokenSource source = new();
        source.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "Q4_0", new RunContext { Cancellation = source.Token }));
        Assert.All(Directory.EnumerateFileSystemEntries(_folder.Path), path => Assert.StartsWith(".out.gguf.", Path.GetFileName(path), StringComparison.Ordinal));
    }

    [Fact]
    public void AnotherRunOnTheSameOutputIsToldToTryAgain()
    {
        string partial = _folder.Write(".out.gguf.partial", "x");
        using (FileStream held = new(partial, FileMode.Open, FileAccess.ReadWrite, FileShare.None))
        {
            Assert.Equal(ErrorKind.Busy, Assert.Throws<QuantException>(() => Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "Q4_0")).Kind);
        }

        Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "Q4_0");
        Assert.False(File.Exists(partial));
    }
}
