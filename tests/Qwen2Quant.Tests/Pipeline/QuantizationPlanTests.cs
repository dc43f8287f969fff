using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Options of a quantization: what is refused before anything is written, copies, split files, metadata.</summary>
public sealed class QuantizationPlanTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>A checkpoint of the 0.5B shape whose data are a hole: a plan reads headers alone.</summary>
    [Fact]
    public void APlanOfAHoleIsThatOfAPublishedFile()
    {
        string source = WriteHole(PublishedShapes.All["0.5B"]);
        RunContext context = new();
        ConversionReport report = Conversions.Quantize(source, _folder.File("out.gguf"), "Q4_K_M", context, new ConversionOptions("gguf:Q4_K_M", DryRun: true));
        Assert.Equal(391859712, report.Tensors.Sum(tensor => tensor.Bytes));
        Assert.Equal((132, 13), (report.Tensors.Count(tensor => tensor.Type == "Q5_0"), report.Tensors.Count(tensor => tensor.Type == "Q8_0")));
        Assert.Equal("Q6_K", report.Tensors.Single(tensor => tensor.Name == "token_embd.weight").RequestedType);
        Assert.False(File.Exists(_folder.File("out.gguf")));

        context = new RunContext();
        Conversions.Quantize(source, _folder.File("out.gguf"), "Q2_K", context, new ConversionOptions("gguf:Q2_K", DryRun: true));
        Assert.Contains("Q4_0", context.Events.Events.Single(planned => planned.Code == "small-saving").Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("IQ2_XXS")]
    [InlineData("Q2_K_S")]
    [InlineData("IQ3_XXS")]
    public void WithoutAnImatrixSomePresetsAreRefused(string preset)
    {
        QuantException error = RefusesToRun(preset, new QuantizationOptions());
        Assert.Contains("calibrate", error.Message, StringComparison.Ordinal);
        Assert.Contains("--calibration", error.Message, StringComparison.Ordinal);
        Assert.Null(Plan("builtin:tiny", preset, new QuantizationOptions { Importance = Conversions.EvenImportance("builtin:tiny") }).Obstacle);
    }

    /// <summary>An importance matrix serves only the tensors that it names.</summary>
    [Fact]
    public void ATensorWhoseTypeNeedsAnEntryAndHasNoneIsRefused()
    {
        QuantException error = RefusesToRun("IQ2_XXS", new QuantizationOptions { Importance = Conversions.EvenImportance("builtin:tiny", "ffn_") });
        Assert.Contains("blk.0.attn", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Q8_1")]
    [InlineData("I32")]
    public void TypesThatCannotBeWrittenAreRefusedBeforeAnythingIsWritten(string type)
    {
        QuantizationOptions options = new() { Types = new RecipeOptions { TensorTypes = [TensorTypeOverride.Parse($"attn_v={type}")] } };
        Assert.Contains("blk.0.attn_v.weight", RefusesToRun("Q8_0", options).Message, StringComparison.Ordinal);
        RunContext context = new();
        Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "Q8_0", context, new ConversionOptions("gguf:Q8_0", DryRun: true), options);
        Assert.Contains(type, context.Events.Events.Single(planned => planned.Code == "cannot-run").Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ACopyKeepsEveryByteAndTheFileType()
    {
        Conversions.Quantize("builtin:tiny", _folder.File("q5.gguf"), "Q5_0");
        Conversions.Quantize(_folder.File("q5.gguf"), _folder.File("copy.gguf"), "COPY");
        AssertSameTensors(_folder.File("q5.gguf"), _folder.File("copy.gguf"));
        using GgufFile copy = Open(_folder.File("copy.gguf"));
        Assert.True(copy.Metadata.TryGetInteger("general.file_type", out int fileType) && fileType == 8);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Plan("builtin:tiny", "COPY", new QuantizationOptions { Types = new RecipeOptions { Pure = true } })).Kind);

        Conversions.Quantize("builtin:tiny", _folder.File("folder.gguf"), "COPY");
        using GgufFile plain = Open(_folder.File("folder.gguf"));
        Assert.Equal(["BF16", "F32"], plain.Tensors.Select(tensor => tensor.Type.Name).Distinct().Order());
        Assert.True(plain.Metadata.TryGetInteger("general.file_type", out fileType) && fileType == 32);
    }

    [Fact]
    public void OverriddenMetadataAreLastInTheOrderGiven()
    {
        string[] texts = ["general.author=str:née: a=b", "tokenizer.ggml.add_bos_token=bool:false", "mine.count=int:4294967295", "mine.share=float:0.25", "general.file_type=int:7"];
        Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "COPY", quantization: new QuantizationOptions { Metadata = [.. texts.Select(MetadataOverride.Parse)] });
        using GgufFile output = Open(_folder.File("out.gguf"));
        Assert.Equal(texts.Select(text => text.Split('=')[0]), output.Metadata.Select(pair => pair.Key).TakeLast(texts.Length));
        Assert.Equal("née: a=b", output.Metadata.Find("general.author")!.GetString());
        Assert.Equal(GgufValue.Scalar(false), output.Metadata.Find("tokenizer.ggml.add_bos_token"));
        Assert.Equal(GgufValue.Scalar(uint.MaxValue), output.Metadata.Find("mine.count"));
        Assert.Equal(GgufValue.Scalar(0.25f), output.Metadata.Find("mine.share"));
        Assert.Equal(GgufValue.Scalar(7u), output.Metadata.Find("general.file_type"));
    }

    [Theory]
    [InlineData("a.b")]
    [InlineData("a.b=1")]
    [InlineData("=int:1")]
    [InlineData("A.b=int:1")]
    [InlineData("a.b=int:-1")]
    [InlineData("a.b=int:4294967296")]
    [InlineData("a.b=float:much")]
    [InlineData("a.b=bool:yes")]
    [InlineData("a.b=str:")]
    [InlineData("a.b=i64:1")]
    public void OtherTextsAreNoMetadata(string text) => Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => MetadataOverride.Parse(text)).Kind);

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void ASplitSourceGivesOneFileOrTheSameParts(int namedPart)
    {
        Conversions.ToGguf("builtin:tiny", _folder.File("whole.gguf"), PlainTypes.BF16);
        SplitFiles.Cut(_folder.File("whole.gguf"), "split", 0, 20);
        string part = _folder.File($"split-0000{namedPart}-of-00003.gguf");
        Conversions.Quantize(_folder.File("whole.gguf"), _folder.File("reference.gguf"), "Q8_0");
        Conversions.Quantize(part, _folder.File("one.gguf"), "Q8_0");
        AssertSameTensors(_folder.File("reference.gguf"), _folder.File("one.gguf"));
        using (GgufFile one = Open(_folder.File("one.gguf"))) Assert.DoesNotContain(one.Metadata, pair => pair.Key.StartsWith("split.", StringComparison.Ordinal));

        QuantizationOptions keep = new() { KeepSplit = true };
        ConversionReport report = Conversions.Quantize(part, _folder.File("kept.gguf"), "Q8_0", quantization: keep);
        Assert.Equal(_folder.File("kept-00001-of-00003.gguf"), report.Output);
        AssertSameTensors(_folder.File("reference.gguf"), _folder.File("kept-00002-of-00003.gguf"));
        using (GgufFile kept = Open(report.Output), source = Open(part))
        {
            Assert.Equal(source.Parts.Select(known => known.Tensors.Count), kept.Parts.Select(known => known.Tensors.Count));
        }

        Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(_folder.Path), path => path.Contains("partial", StringComparison.Ordinal));
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Conversions.Quantize(part, _folder.File("kept.gguf"), "Q8_0", quantization: keep)).Kind);
        Conversions.Quantize(part, _folder.File("kept.gguf"), "Q4_0", options: new ConversionOptions("gguf:Q4_0", Force: true), quantization: keep);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Conversions.Quantize(part, _folder.File("split.gguf"), "Q8_0", options: new ConversionOptions("gguf:Q8_0", Force: true), quantization: keep)).Kind);
    }

    [Fact]
    public void OptionsWithoutEffectAreTold()
    {
        RunContext context = new();
        RecipeOptions types = new() { LeaveOutputTensor = true, TensorTypes = [TensorTypeOverride.Parse("attn_w=Q8_0")] };
        Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), "Q8_0", context, quantization: new QuantizationOptions { KeepSplit = true, Types = types });
        Assert.Equal(["no-output-tensor", "not-split", "tensor-type-unused"], context.Events.Events.Select(planned => planned.Code).Order());
    }

    private static ConversionPlan Plan(string model, string preset, QuantizationOptions options)
    {
        using Checkpoint source = Checkpoint.Open(model, new RunContext());
        return GgufPlanner.PlanQuantization(source, PublishedShapes.Find(preset), options, "out.gguf", new RunContext());
    }

    private static GgufFile Open(string path) => GgufFile.Open(DiskFileLayer.Instance, path, new ReadOptions());

    private QuantException RefusesToRun(string preset, QuantizationOptions options)
    {
        QuantException error = Assert.Throws<QuantException>(() => Conversions.Quantize("builtin:tiny", _folder.File("out.gguf"), preset, quantization: options));
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder.Path));
        return error;
    }

    private static void AssertSameTensors(string expectedPath, string actualPath)
    {
        using GgufFile expected = Open(expectedPath), actual = Open(actualPath);
        Assert.Equal(expected.Tensors.Select(tensor => tensor.Name).Order(), actual.Tensors.Select(tensor => tensor.Name).Order());
        foreach (TensorEntry entry in expected.Tensors) Assert.Equal(SplitFiles.Bytes(expected, entry), SplitFiles.Bytes(actual, actual.Find(entry.Name)!));
    }

    private string WriteHole(Qwen2Config config)
    {
        string folder = TestCheckpoint.Write(_folder.File("hole"), TestCheckpoint.Small);
        OutputTensor[] tensors = [.. TensorCatalogue.For(config).Tensors.Select(tensor => new OutputTensor(tensor.Name, PlainTypes.BF16, tensor.Shape))];
        PlannedFile planned = SafetensorsPlan.Create(tensors, new Dictionary<string, string> { ["format"] = "pt" }, long.MaxValue).Files.Single();
        using FileStream file = File.Create(Path.Combine(folder, planned.Name));
        file.Write(planned.Header);
        file.SetLength(planned.ByteLength);
        File.WriteAllBytes(Path.Combine(folder, "config.json"), config.ToJson());
        return folder;
    }
}
