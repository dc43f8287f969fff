using System.Text.Json.Nodes;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Formats.Packed.Mlx;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>AWQ and MLX folders from a model to the reopened output.</summary>
public sealed class AwqMlxConversionTests : IDisposable
{
    private static readonly Qwen2Config Moe = TestCheckpoint.Small with { IsMoe = true, NumHiddenLayers = 2, MoeIntermediateSize = 32, SharedExpertIntermediateSize = 64, NumExperts = 4, NumExpertsPerTok = 2, TieWordEmbeddings = false };

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("awq:w4g32", 14)]
    [InlineData("awq:w4g-1", 14)]
    [InlineData("mlx:w2g32", 15)]
    [InlineData("mlx:w3g32", 15)]
    [InlineData("mlx:w4g32", 15)]
    [InlineData("mlx:w5g32", 15)]
    [InlineData("mlx:w6g32", 15)]
    [InlineData("mlx:w8g32", 15)]
    public void EveryMatrixReadsBackAsItWasRounded(string scheme, int packedCount)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        ConversionReport report = Conversions.ToPacked(source, _folder.File("out"), scheme);
        using Checkpoint before = Checkpoint.Open(source, new RunContext()), after = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Equal(after.Tensors.Tensors.Count, report.Tensors.Count);
        int packed = 0;
        foreach (TensorEntry entry in after.Tensors.Tensors)
        {
            float[] values = before.Tensors.ReadAll(before.Tensors.Find(entry.Name)!), expected = values;
            if (entry.Type.IsQuantized)
            {
                byte[] encoded = new byte[entry.ByteLength];
                SolverCatalog.RoundToNearest.Encode(new RowSlab(entry.Name, 0, (int)entry.Shape.RowLength, values), entry.Type, Effort.Normal, encoded);
                expected = new float[values.Length];
                entry.Type.Decode(encoded, expected);
                packed++;
            }
            else if (scheme.StartsWith("awq", StringComparison.Ordinal) && entry.Name.EndsWith(".bias", StringComparison.Ordinal))
            {
                expected = [.. values.Select(value => (float)(Half)value)];
            }

            Assert.Equal(expected, after.Tensors.ReadAll(entry));
        }

        Assert.Equal(packedCount, packed);
    }

    [Theory]
    [InlineData("awq:w4g32")]
    [InlineData("mlx:w3g32")]
    public void BytesDependNeitherOnThreadsNorOnShards(string scheme)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Moe with { SharedExpertIntermediateSize = 1056 });
        Conversions.ToPacked(source, _folder.File("one"), scheme, new RunContext { Threads = 1 });
        Conversions.ToPacked(source, _folder.File("many"), scheme, new RunContext { Threads = 7 });
        Conversions.ToPacked(source, _folder.File("shards"), scheme, maxShardBytes: 20_000);
        Assert.Equal(File.ReadAllBytes(_folder.File("one/model.safetensors")), File.ReadAllBytes(_folder.File("many/model.safetensors")));
        using Checkpoint whole = Checkpoint.Open(_folder.File("one"), new RunContext()), cut = Checkpoint.Open(_folder.File("shards"), new RunContext());
        Assert.True(cut.WeightPaths.Count > 5);
        foreach (TensorEntry entry in whole.Tensors.Tensors) Assert.Equal(whole.Tensors.ReadAll(entry), cut.Tensors.ReadAll(cut.Tensors.Find(entry.Name)!));
        JsonNode metadata = Json("shards/model.safetensors.index.json")["metadata"]!;
        using SafetensorsCheckpoint raw = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File("shards"), new ReadOptions());
        Assert.Equal(raw.Tensors.Sum(entry => entry.ByteLength), (long)metadata["total_size"]!);
        Assert.Equal(scheme.StartsWith("mlx", StringComparison.Ordinal) ? whole.Tensors.Catalogue.ParameterCount : null, (long?)metadata["total_parameters"]);
    }

    [Theory]
    [InlineData("awq:w4g64", "it, or a matrix that readers fuse with it, has no whole number of groups of 64 or of 8 outputs; written as BF16")]
    [InlineData("mlx:w4g64", "it, or a matrix that readers fuse with it, has no whole number of groups of 64; written as BF16")]
    public void UnitsThatDoNotFitStayPlain(string scheme, string message)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small);
        ConversionReport report = Conversions.ToPacked(source, _folder.File("out"), scheme);
        string[] names = ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"];
        Assert.Equal(names.Select(name => $"{name}.weight: {message}"), report.Events.Where(item => item.IsSubstitution).Select(item => item.Message));
        if (scheme.StartsWith("awq", StringComparison.Ordinal)) Assert.Equal(names, Json("out/config.json")["quantization_config"]!["modules_to_not_convert"]!.AsArray().Select(name => (string)name!));
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Same(PlainTypes.BF16, reopened.Tensors.Find(names[0] + ".weight")!.Type);
        Assert.True(reopened.Tensors.Find("model.layers.0.mlp.up_proj.weight")!.Type.IsQuantized);
        Assert.Equal(ErrorKind.Substitution, Assert.Throws<QuantException>(() => Conversions.ToPacked(source, _folder.File("strict"), scheme, options: new ConversionOptions(scheme, Strict: true))).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Conversions.ToPacked(TestCheckpoint.Write(_folder.File("odd"), TestCheckpoint.Odd), _folder.File("none"), scheme)).Kind);
    }

    /// <summary>AutoAWQ's readers look for parts of names: those of routers are found in no other where all layers are sparse, else they are whole paths.</summary>
    [Theory]
    [InlineData(1, "mlp.gate,mlp.shared_expert_gate")]
    [InlineData(2, "model.layers.1.mlp.gate,model.layers.1.mlp.shared_expert_gate")]
    public void AwqNamesTheRoutersThatStayPlain(int sparseStep, string expected)
    {
        Conversions.ToPacked(TestCheckpoint.Write(_folder.File("source"), Moe with { DecoderSparseStep = sparseStep }), _folder.File("out"), "awq:w4g32");
        JsonNode config = Json("out/config.json")["quantization_config"]!;
        Assert.Equal(expected.Split(','), config["modules_to_not_convert"]!.AsArray().Select(name => (string)name!));
        Assert.Equal(("awq", 4, 32, true, "gemm"), ((string)config["quant_method"]!, (int)config["bits"]!, (int)config["group_size"]!, (bool)config["zero_point"]!, (string)config["version"]!));
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), new RunContext());
        foreach (CanonicalTensor tensor in reopened.Tensors.Catalogue.Tensors) Assert.Equal(tensor.Role.IsLayerLinear(), reopened.Tensors.Find(tensor.Name)!.Type.IsQuantized);
    }

    [Fact]
    public void AnOlderAwqFolderSaysItInItsOwnFile()
    {
        Conversions.ToPacked(TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small), _folder.File("w4"), "awq:w4g32");
        JsonObject config = Json("w4/config.json").AsObject();
        config.Remove("quantization_config");
        File.WriteAllText(_folder.File("w4/config.json"), config.ToJsonString());
        File.WriteAllText(_folder.File("w4/quant_config.json"), """{"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}""");
        using Checkpoint reopened = Checkpoint.Open(_folder.File("w4"), new RunContext());
        Assert.Equal("safetensors, AWQ GEMM", reopened.ContainerName);
    }

    /// <summary>mlx-lm's names and shapes: experts of a layer are one tensor, and settings are those of the stack; routers stay plain, the output matrix does not.</summary>
    [Fact]
    public void ExpertsAreStackedForMlx()
    {
        MlxScheme scheme = MlxScheme.Parse("mlx:w4g32")!;
        QuantizationOptions wider = new() { Modules = [ModuleOverride.Parse("experts=w8g32", scheme), ModuleOverride.Parse("self_attn=plain", scheme)] };
        Conversions.ToPacked(TestCheckpoint.Write(_folder.File("source"), Moe), _folder.File("out"), "mlx:w4g32", quantization: wider);
        using (SafetensorsCheckpoint raw = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File("out"), new ReadOptions()))
        {
            Assert.Equal("mlx", raw.Files[0].Metadata["format"]);
            Assert.Equal("U32 [4, 32, 16]", Describe(raw, "model.layers.1.mlp.switch_mlp.up_proj.weight"));
            Assert.Equal("BF16 [4, 32, 2]", Describe(raw, "model.layers.1.mlp.switch_mlp.up_proj.scales"));
            Assert.Equal("BF16 [4, 64, 1]", Describe(raw, "model.layers.1.mlp.switch_mlp.down_proj.biases"));
            Assert.Equal("BF16 [4, 64]", Describe(raw, "model.layers.1.mlp.gate.weight"));
            Assert.Equal("U32 [2048, 8]", Describe(raw, "lm_head.weight"));
            Assert.DoesNotContain(raw.Tensors, entry => entry.Name.Contains(".experts.", StringComparison.Ordinal) || (entry.Name.Contains("self_attn", StringComparison.Ordinal) && entry.Name.Contains("scales", StringComparison.Ordinal)));
        }

        JsonNode quantization = Json("out/config.json")["quantization"]!;
        Assert.True(JsonNode.DeepEquals(quantization, Json("out/config.json")["quantization_config"]));
        Assert.Equal(
            "group_size bits mode " + string.Join(' ', Enumerable.Range(0, 2).Select(layer => $"{layer}.gate_proj {layer}.up_proj {layer}.down_proj")),
            string.Join(' ', quantization.AsObject().Select(pair => pair.Key.Replace("model.layers.", "", StringComparison.Ordinal).Replace("mlp.switch_mlp.", "", StringComparison.Ordinal))));
        Assert.Equal("""{"group_size":32,"bits":8}""", quantization["model.layers.0.mlp.switch_mlp.up_proj"]!.ToJsonString());
        using Checkpoint before = Checkpoint.Open(_folder.File("source"), new RunContext()), after = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Equal("MLX8G32_BF16", after.Tensors.Find("model.layers.1.mlp.experts.3.down_proj.weight")!.Type.Name);
        Assert.Equal("MLX4G32_BF16", after.Tensors.Find("model.embed_tokens.weight")!.Type.Name);
        foreach (TensorEntry entry in after.Tensors.Tensors.Where(entry => entry.Name.Contains(".experts.", StringComparison.Ordinal)))
        {
            float[] expected = before.Tensors.ReadAll(before.Tensors.Find(entry.Name)!), found = after.Tensors.ReadAll(entry);
            // Codes of 8 bits over a range of 0.2.
            for (int i = 0; i < found.Length; i++) Assert.Equal(expected[i], found[i], 0.001f);
        }

        string Describe(SafetensorsCheckpoint raw, string name) => $"{raw.Find(name)!.Type} {raw.Find(name)!.Shape}";
    }

    [Theory]
    [InlineData("awq:w4g32")]
    [InlineData("mlx:w6g32")]
    public void APackedSourceBecomesAPlainOne(string scheme)
    {
        Conversions.ToPacked(TestCheckpoint.Write(_folder.File("source"), Moe), _folder.File("packed"), scheme);
        Conversions.ToFolder(_folder.File("packed"), _folder.File("plain"), PlainTypes.F32);
        Conversions.ToGguf(_folder.File("packed"), _folder.File("plain.gguf"), PlainTypes.F32);
        Assert.Null(Json("plain/config.json")["quantization_config"]);
        Assert.Null(Json("plain/config.json")["quantization"]);
        using Checkpoint packed = Checkpoint.Open(_folder.File("packed"), new RunContext()), plain = Checkpoint.Open(_folder.File("plain"), new RunContext()), gguf = Checkpoint.Open(_folder.File("plain.gguf"), new RunContext());
        foreach (TensorEntry entry in packed.Tensors.Tensors)
        {
            float[] values = packed.Tensors.ReadAll(entry);
            Assert.Equal(values, plain.Tensors.ReadAll(plain.Tensors.Find(entry.Name)!));
            Assert.Equal(values, gguf.Tensors.ReadAll(gguf.Tensors.Find(entry.Name)!));
        }
    }

    [Theory]
    [InlineData("AWQ:W4G64", "awq:w4g64")]
    [InlineData("mlx:W5g128", "mlx:w5g128")]
    public void SchemesAreSpelledOneWay(string text, string spelled) => Assert.Equal(spelled, PackedScheme.Parse(text)!.ToString());

    [Theory]
    [InlineData("awq:w8g128", AwqScheme.Forms)]
    [InlineData("awq:w4g16", AwqScheme.Forms)]
    [InlineData("awq:w4", AwqScheme.Forms)]
    [InlineData("mlx:w7g64", MlxScheme.Forms)]
    [InlineData("mlx:w4g-1", MlxScheme.Forms)]
    [InlineData("mlx:mxfp4", MlxScheme.Forms)]
    public void OtherSchemesAreRefused(string text, string forms)
    {
        QuantException error = Assert.Throws<QuantException>(() => PackedScheme.Parse(text));
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.Contains(forms, error.Message, StringComparison.Ordinal);
    }

    private JsonNode Json(string file) => JsonNode.Parse(File.ReadAllBytes(_folder.File(file)))!;
}
