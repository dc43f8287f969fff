using System.Text.Json;
using System.Text.Json.Nodes;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Packed;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>GPTQ folders from a model to the reopened output, and those that GPTQModel wrote.</summary>
public sealed class GptqConversionTests : IDisposable
{
    private static readonly Qwen2Config Moe = TestCheckpoint.Small with { IsMoe = true, NumHiddenLayers = 1, MoeIntermediateSize = 32, SharedExpertIntermediateSize = 64, NumExperts = 4, NumExpertsPerTok = 2, TieWordEmbeddings = false };

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("w4g32")]
    [InlineData("w2g32-asym")]
    [InlineData("w3g32-asym-v2")]
    [InlineData("w8g-1")]
    public void EveryMatrixReadsBackAsItWasRounded(string scheme)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        ConversionReport report = Conversions.ToGptq(source, _folder.File("out"), scheme);
        using Checkpoint before = Checkpoint.Open(source, new RunContext()), after = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Equal(after.Tensors.Tensors.Count, report.Tensors.Count);
        int packed = 0;
        foreach (TensorEntry entry in after.Tensors.Tensors)
        {
            float[] values = before.Tensors.ReadAll(before.Tensors.Find(entry.Name)!), expected = values, found = after.Tensors.ReadAll(entry);
            if (entry.Type is IntegerGridType type)
            {
                byte[] encoded = new byte[entry.ByteLength];
                int rowLength = (int)entry.Shape.RowLength;
                SolverCatalog.RoundToNearest.Encode(new RowSlab(entry.Name, 0, rowLength, values), type, Effort.Normal, encoded);
                expected = new float[values.Length];
                type.Decode(encoded, expected);
                packed++;
            }
            else if (entry.Name.EndsWith(".bias", StringComparison.Ordinal))
            {
                expected = [.. values.Select(value => (float)(Half)value)];
            }

            Assert.Equal(expected, found);
        }

        Assert.Equal(14, packed);
        Assert.Equal(new FileInfo(_folder.File("out/model.safetensors")).Length, report.Bytes - Directory.GetFiles(_folder.File("out")).Where(file => Path.GetFileName(file) is not ("model.safetensors" or "qwen2quant.json")).Sum(file => new FileInfo(file).Length));
    }

    [Fact]
    public void BytesDependNeitherOnThreadsNorOnShards()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small with { IntermediateSize = 1056 });
        Conversions.ToGptq(source, _folder.File("one"), "w4g32", new RunContext { Threads = 1 });
        Conversions.ToGptq(source, _folder.File("many"), "w4g32", new RunContext { Threads = 7 });
        Conversions.ToGptq(source, _folder.File("shards"), "w4g32", maxShardBytes: 20_000);
        Assert.Equal(File.ReadAllBytes(_folder.File("one/model.safetensors")), File.ReadAllBytes(_folder.File("many/model.safetensors")));
        Assert.True(Directory.GetFiles(_folder.File("shards"), "*.safetensors").Length > 5);
        using Checkpoint whole = Checkpoint.Open(_folder.File("one"), new RunContext()), cut = Checkpoint.Open(_folder.File("shards"), new RunContext());
        foreach (TensorEntry entry in whole.Tensors.Tensors) Assert.Equal(whole.Tensors.ReadAll(entry), cut.Tensors.ReadAll(cut.Tensors.Find(entry.Name)!));
    }

    [Fact]
    public void UnitsThatDoNotFitStayPlainAndTheConfigurationSaysSo()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        ConversionReport report = Conversions.ToGptq(source, _folder.File("out"), "w4g64");
        Assert.Equal(["model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"], report.Events.Where(item => item.IsSubstitution).Select(item => item.Tensor));
        JsonNode config = Json("out/quantize_config.json");
        Assert.Equal(@"-:.*\.mlp\.down_proj$", Assert.Single(config["dynamic"]!.AsObject()).Key);
        Assert.Equal(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj"], config["modules_in_block_to_quantize"]!.AsArray().SelectMany(step => step!.AsArray()).Select(name => (string)name!));
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Same(PlainTypes.BF16, reopened.Tensors.Find("model.layers.0.mlp.down_proj.weight")!.Type);
        Assert.Equal("W4G64", reopened.Tensors.Find("model.layers.0.mlp.up_proj.weight")!.Type.Name);
        QuantException strict = Assert.Throws<QuantException>(() => Conversions.ToGptq(source, _folder.File("strict"), "w4g64", options: new ConversionOptions("gptq", Strict: true)));
        Assert.Equal(ErrorKind.Substitution, strict.Kind);
        QuantException none = Assert.Throws<QuantException>(() => Conversions.ToGptq(TestCheckpoint.Write(_folder.File("odd"), TestCheckpoint.Odd), _folder.File("none"), "w4g128"));
        Assert.Equal(ErrorKind.Usage, none.Kind);
    }

    [Fact]
    public void ModulesMayHaveTypesOfTheirOwn()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        PackedScheme scheme = PackedScheme.Parse("gptq:w4g32")!;
        QuantizationOptions options = new() { Modules = [ModuleOverride.Parse(@"layers\.1\.mlp\.down_proj=plain", scheme), ModuleOverride.Parse("down_proj=w8g32-asym", scheme), ModuleOverride.Parse("layers.0.self_attn.[qkv]_=W3G64", scheme), ModuleOverride.Parse("nothing=plain", scheme)] };
        ConversionReport report = Conversions.ToGptq(source, _folder.File("out"), "w4g32", quantization: options);
        Assert.Equal("tensor-type-unused", Assert.Single(report.Events, item => item.Tensor is null && item.Code is not ("few-readers" or "tensor-parallel")).Code);
        Assert.Equal(
            """{"+:model\\.layers\\.0\\.self_attn\\.(?:q_proj|k_proj|v_proj|qkv_proj)$":{"bits":3,"group_size":64,"sym":true},"+:model\\.layers\\.0\\.mlp\\.down_proj$":{"bits":8,"group_size":32,"sym":false},"-:model\\.layers\\.1\\.mlp\\.down_proj$":{}}""",
            Json("out/quantize_config.json")["dynamic"]!.ToJsonString(new JsonSerializerOptions { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }));
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), new RunContext());
        string TypeOf(string module) => reopened.Tensors.Find($"model.layers.{module}.weight")!.Type.Name;
        Assert.Equal("W3G64 W4G32 W8G32_ASYM BF16", $"{TypeOf("0.self_attn.v_proj")} {TypeOf("1.self_attn.v_proj")} {TypeOf("0.mlp.down_proj")} {TypeOf("1.mlp.down_proj")}");
        QuantException parted = Assert.Throws<QuantException>(() => Conversions.ToGptq(source, _folder.File("parted"), "w4g32", quantization: new QuantizationOptions { Modules = [ModuleOverride.Parse("v_proj=w8g32", scheme)] }));
        Assert.Equal((ErrorKind.Usage, "model.layers.0.self_attn.v_proj.weight"), (parted.Kind, parted.Tensor));
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => ModuleOverride.Parse("v_proj=Q4_0", scheme)).Kind);
    }

    [Fact]
    public void ExpertsArePackedAndRoutersNot()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Moe);
        Conversions.ToGptq(source, _folder.File("out"), "w4g32");
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Equal("W4G32", reopened.Tensors.Find("model.layers.0.mlp.experts.3.down_proj.weight")!.Type.Name);
        foreach (string plain in new[] { "lm_head", "model.embed_tokens", "model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert_gate" }) Assert.Same(PlainTypes.BF16, reopened.Tensors.Find(plain + ".weight")!.Type);
        JsonArray steps = Json("out/config.json")["quantization_config"]!["modules_in_block_to_quantize"]!.AsArray();
        Assert.Equal(4, steps.Count);
        Assert.Contains("mlp.experts.3.up_proj", steps[2]!.AsArray().Select(name => (string)name!));
        Assert.DoesNotContain("mlp.gate", steps.SelectMany(step => step!.AsArray()).Select(name => (string)name!));
    }

    [Fact]
    public void APackedSourceIsNotQuantizedAgainUnlessThatIsAllowed()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        Conversions.ToGptq(source, _folder.File("w4"), "w4g32");
        Assert.Equal(PipelineRules.SourceNotQuantized, Assert.Throws<QuantException>(() => Conversions.ToGptq(_folder.File("w4"), _folder.File("w8"), "w8g32")).Rule);
        Assert.Equal(PipelineRules.SourceNotQuantized, Assert.Throws<QuantException>(() => Conversions.Quantize(_folder.File("w4"), _folder.File("q8.gguf"), "Q8_0")).Rule);
        Conversions.ToGptq(_folder.File("w4"), _folder.File("w8"), "w8g32", quantization: new QuantizationOptions { AllowRequantize = true });
        Conversions.ToGptq(_folder.File("w4"), _folder.File("again"), "w4g32");
        Assert.Equal(File.ReadAllBytes(_folder.File("w4/model.safetensors")), File.ReadAllBytes(_folder.File("again/model.safetensors")));
    }

    [Fact]
    public void APackedSourceBecomesAPlainOne()
    {
        Conversions.ToGptq(TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small), _folder.File("w4"), "w4g32");
        Conversions.ToFolder(_folder.File("w4"), _folder.File("plain"), PlainTypes.F32);
        Conversions.ToGguf(_folder.File("w4"), _folder.File("plain.gguf"));
        Assert.Null(Json("plain/config.json")["quantization_config"]);
        using Checkpoint packed = Checkpoint.Open(_folder.File("w4"), new RunContext()), plain = Checkpoint.Open(_folder.File("plain"), new RunContext()), gguf = Checkpoint.Open(_folder.File("plain.gguf"), new RunContext());
        foreach (TensorEntry entry in packed.Tensors.Tensors)
        {
            float[] values = packed.Tensors.ReadAll(entry);
            Assert.Equal(values, plain.Tensors.ReadAll(plain.Tensors.Find(entry.Name)!));
            if (entry.Type is IntegerGridType) Assert.Equal(values.Select(value => (float)(Half)value), gguf.Tensors.ReadAll(gguf.Tensors.Find(entry.Name)!));
        }
    }

    /// <summary>Groups of permuted columns are written, verified, and read as matrices in the order of their inputs.</summary>
    [Fact]
    public void AMatrixWithPermutedColumnsReadsBackInTheirOrder()
    {
        RunContext context = new() { Threads = 2 };
        using Checkpoint source = Checkpoint.Open("builtin:tiny", context);
        ConversionPlan plan = PackedPlanner.Plan(source, GptqScheme.Parse("gptq:w4g32-asym-descact")!, new QuantizationOptions { Damping = 0.03 }, _folder.File("out"), long.MaxValue, context);
        SolvingJob job = new(EvaluationText.Load(context.Files, "builtin:calibration", Stream.Null), null, new CalibrationOptions { Samples = 2, Context = 64 }, new GptqOptions { PermutesColumns = true, DescentPasses = 1 });
        ConversionReport report = new Conversion(source, plan, new ConversionOptions("gptq:w4g32-asym-descact", Solving: job), context).Run();

        Assert.True((bool)Json("out/config.json")["quantization_config"]!["desc_act"]!);
        Assert.Equal(0.03, (double)Json("out/config.json")["quantization_config"]!["damp_percent"]!);
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), context);
        TensorReport[] solved = [.. report.Tensors.Where(tensor => tensor.Solver == "gptq")];
        Assert.Equal(21, solved.Length);
        foreach (TensorReport tensor in solved)
        {
            TensorEntry entry = reopened.Tensors.Find(tensor.Name)!;
            Assert.Same(PlainTypes.F32, entry.Type);
            Assert.Equal("W4G32_ASYM", reopened.Raw.FindStored(tensor.Name)!.Type.Name);
            float[] expected = source.Tensors.ReadAll(source.Tensors.Find(tensor.Name)!), found = reopened.Tensors.ReadAll(entry);
            double rmse = Math.Sqrt(expected.Zip(found).Average(pair => Math.Pow(pair.First - pair.Second, 2)));
            Assert.InRange(rmse, tensor.Rmse!.Value * 0.9999, tensor.Rmse.Value * 1.0001);
            Assert.InRange(tensor.RelativeError!.Value, 0, 0.15);
        }

        Assert.Equal("W4G32_ASYM", Inspection.Run(_folder.File("out"), true, false, context).Tensors!.Single(tensor => tensor.Name.EndsWith("0.mlp.up_proj.weight", StringComparison.Ordinal)).Type);
        Assert.Equal(PipelineRules.SourceNotQuantized, Assert.Throws<QuantException>(() => Conversions.Quantize(_folder.File("out"), _folder.File("q8.gguf"), "Q8_0")).Rule);
    }

    [Fact]
    public void AnImportanceMatrixWeighsTheColumns()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Moe);
        Conversions.ToGptq(source, _folder.File("plain"), "w4g32");
        QuantizationOptions weighed = new() { Importance = Conversions.EvenImportance(source) };
        ConversionReport report = Conversions.ToGptq(source, _folder.File("weighed"), "w4g32", quantization: weighed);
        Assert.Equal(1, report.Tensors.Single(tensor => tensor.Name.EndsWith("experts.2.up_proj.weight", StringComparison.Ordinal)).TokensSeen);
        Assert.NotEqual(File.ReadAllBytes(_folder.File("plain/model.safetensors")), File.ReadAllBytes(_folder.File("weighed/model.safetensors")));
    }

    [Fact]
    public void AnOlderFolderSaysItInItsOwnFile()
    {
        Conversions.ToGptq(TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small), _folder.File("w4"), "w4g32");
        JsonObject config = Json("w4/config.json").AsObject();
        config.Remove("quantization_config");
        File.WriteAllText(_folder.File("w4/config.json"), config.ToJsonString());
        using Checkpoint reopened = Checkpoint.Open(_folder.File("w4"), new RunContext());
        Assert.Equal("safetensors, GPTQ v1", reopened.ContainerName);
    }

    [Theory]
    [InlineData("gptq:w4g128", "gptq:w4g128")]
    [InlineData("GPTQ:W3G-1-ASYM-DESCACT-V2", "gptq:w3g-1-asym-descact-v2")]
    [InlineData("gptq:w8g64-actorder", "gptq:w8g64-actorder")]
    public void SchemesAreSpelledOneWay(string text, string spelled) => Assert.Equal(spelled, GptqScheme.Parse(text)!.ToString());

    [Theory]
    [InlineData("gptq:w5g128")]
    [InlineData("gptq:w4g100")]
    [InlineData("gptq:w4")]
    [InlineData("gptq:w4g128-actorder-descact")]
    public void OtherSchemesAreRefused(string text) => Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => GptqScheme.Parse(text)).Kind);

    [SharedTheory]
    [MemberData(nameof(GptqLayoutTests.Goldens), MemberType = typeof(GptqLayoutTests))]
    public void GoldensHaveTheirPerplexity(string folder)
    {
        using JsonDocument index = JsonDocument.Parse(File.ReadAllBytes(SharedData.Path("models/golden/index.json")));
        double expected = index.RootElement.GetProperty("checkpoints").EnumerateArray().Single(entry => entry.GetProperty("folder").GetString() == folder).GetProperty("perplexity").GetDouble();
        RunContext context = new() { Exact = true };
        using Checkpoint checkpoint = Checkpoint.Open(SharedData.Path($"models/golden/{folder}"), context);
        EvaluationText text = EvaluationText.Load(context.Files, SharedData.Path("data/text/heldout.txt"), Stream.Null);
        PerplexityResult result = Proof.Perplexity(checkpoint, text, new WindowOptions { Context = 256, Chunks = 8, Protocol = ScoringProtocol.Full }, context);
        Assert.Equal(2040, result.Tokens);
        Assert.InRange(result.Perplexity / expected, 0.9999, 1.0001);
    }

    /// <summary>The same scheme of the same model by GPTQModel and by this program: the same tensors, and its keys among ours.</summary>
    [SharedTheory]
    [InlineData("tiny-qwen2", "w4g128-asym", "gptqmodel-g128-4bit-asym")]
    [InlineData("tiny-qwen2", "w3g32", "gptqmodel-g32-3bit")]
    [InlineData("tiny-qwen2", "w8g64", "gptqmodel-g64-8bit")]
    [InlineData("tiny-qwen2moe", "w4g128", "gptqmodel-moe-g128-4bit")]
    public void OutputsAreLaidOutAsGptqModels(string model, string scheme, string golden)
    {
        Conversions.ToGptq(SharedData.Path($"models/{model}"), _folder.File("out"), scheme);
        using SafetensorsCheckpoint ours = Raw(_folder.File("out")), theirs = Raw(SharedData.Path($"models/golden/{golden}"));
        Assert.Equal(Names(theirs), Names(ours));
        Assert.Equal(theirs.Files[0].Metadata, ours.Files[0].Metadata);
        JsonObject their = JsonNode.Parse(File.ReadAllBytes(SharedData.Path($"models/golden/{golden}/config.json")))!["quantization_config"]!.AsObject();
        JsonObject our = Json("out/config.json")["quantization_config"]!.AsObject();
        foreach ((string key, JsonNode? value) in their)
        {
            if (key == "meta") Assert.True(our.ContainsKey(key));
            else Assert.Equal(value!.ToJsonString(), our[key]?.ToJsonString());
        }

        Assert.True(JsonNode.DeepEquals(our, Json("out/quantize_config.json")));

        static SafetensorsCheckpoint Raw(string folder) => SafetensorsCheckpoint.Open(DiskFileLayer.Instance, folder, new ReadOptions());
        static string[] Names(SafetensorsCheckpoint checkpoint) => [.. checkpoint.Tensors.Select(entry => $"{entry.Name} {entry.Type} {entry.Shape}").Order(StringComparer.Ordinal)];
    }

    private JsonNode Json(string file) => JsonNode.Parse(File.ReadAllBytes(_folder.File(file)))!;
}
