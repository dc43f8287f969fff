using System.Text.Json.Nodes;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Float;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Folders of compressed-tensors and plain fp8 from plan to reopened output.</summary>
public sealed class CtConversionTests : IDisposable
{
    private const string NoActivations = "null";
    private const string TokenActivations = """{"num_bits": 8, "type": "TYPE", "symmetric": true, "group_size": null, "strategy": "token", "block_structure": null, "dynamic": true, "actorder": null, "observer": null, "observer_kwargs": {}}""";

    /// <summary>Widths that tiles of 128 divide, but for the experts'.</summary>
    private static readonly Qwen2Config Wide = TestCheckpoint.Small with { HiddenSize = 128, IntermediateSize = 256, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 128 };

    private static readonly Qwen2Config Moe = Wide with { IsMoe = true, MoeIntermediateSize = 32, SharedExpertIntermediateSize = 128, NumExperts = 4, NumExpertsPerTok = 2, TieWordEmbeddings = false };

    private readonly TempFolder _folder = new();

    /// <summary>Scheme, format, weights that differ from the common keys, activations.</summary>
    public static TheoryData<string, string, string, string> Configurations => new()
    {
        { "W4A16", "pack-quantized", """{"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group"}""", NoActivations },
        { "w4a16-g32-ACTORDER", "pack-quantized", """{"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group", "actorder": "weight"}""", NoActivations },
        { "W4A16_ASYM-g64", "pack-quantized", """{"num_bits": 4, "type": "int", "group_size": 64, "strategy": "group", "symmetric": false}""", NoActivations },
        { "W8A16-g-1", "pack-quantized", """{"num_bits": 8, "type": "int", "group_size": null, "strategy": "channel"}""", NoActivations },
        { "W8A8", "int-quantized", """{"num_bits": 8, "type": "int", "group_size": null, "strategy": "channel"}""", TokenActivations.Replace("TYPE", "int", StringComparison.Ordinal) },
        { "FP8_DYNAMIC", "float-quantized", """{"num_bits": 8, "type": "float", "group_size": null, "strategy": "channel"}""", TokenActivations.Replace("TYPE", "float", StringComparison.Ordinal) },
        { "FP8_BLOCK", "float-quantized", """{"num_bits": 8, "type": "float", "group_size": null, "strategy": "block", "block_structure": [128, 128]}""", TokenActivations.Replace("TYPE", "float", StringComparison.Ordinal).Replace("\"group_size\": null, \"strategy\": \"token\"", "\"group_size\": 128, \"strategy\": \"group\"", StringComparison.Ordinal) },
        { "NVFP4A16", "nvfp4-pack-quantized", """{"num_bits": 4, "type": "float", "group_size": 16, "strategy": "tensor_group", "scale_dtype": "torch.float8_e4m3fn"}""", NoActivations },
        { "MXFP4A16", "mxfp4-pack-quantized", """{"num_bits": 4, "type": "float", "group_size": 32, "strategy": "group", "scale_dtype": "torch.uint8"}""", NoActivations },
        { "MXFP8A16", "mxfp8-quantized", """{"num_bits": 8, "type": "float", "group_size": 32, "strategy": "group", "scale_dtype": "torch.uint8"}""", NoActivations },
    };

    public void Dispose() => _folder.Dispose();

    /// <summary>The whole object, key by key: readers refuse keys that they do not know inside groups.</summary>
    [Theory]
    [MemberData(nameof(Configurations))]
    public void ConfigurationsHaveTheKeysOfTheirFormatAndNoOthers(string scheme, string format, string weights, string activations)
    {
        ConversionPlan plan = Plan(TestCheckpoint.Write(_folder.File("source"), Wide), "compressed-tensors:" + scheme);
        JsonObject expectedWeights = Parse("""{"symmetric": true, "block_structure": null, "dynamic": false, "actorder": null, "observer": "minmax", "observer_kwargs": {}}""");
        foreach ((string key, JsonNode? value) in Parse(weights)) expectedWeights[key] = value?.DeepClone();
        JsonObject expected = new()
        {
            ["quant_method"] = "compressed-tensors",
            ["format"] = format,
            ["quantization_status"] = "compressed",
            ["global_compression_ratio"] = null,
            ["kv_cache_scheme"] = null,
            ["ignore"] = new JsonArray("lm_head"),
            ["config_groups"] = new JsonObject { ["group_0"] = new JsonObject { ["targets"] = new JsonArray("Linear"), ["weights"] = expectedWeights, ["input_activations"] = JsonNode.Parse(activations), ["output_activations"] = null } },
        };
        JsonNode found = JsonNode.Parse(plan.Companions.Single(file => file.Name == "config.json").Bytes)!["quantization_config"]!;
        Assert.True(JsonNode.DeepEquals(expected, found), found.ToJsonString());
    }

    /// <summary>Every matrix reads back as its encoder leaves it, whatever the threads and the shards.</summary>
    [Theory]
    [InlineData("compressed-tensors:W4A16-g32", "W4G32_BF16")]
    [InlineData("compressed-tensors:W4A16_ASYM-g64", "W4G64_ASYM_BF16")]
    [InlineData("compressed-tensors:W8A8", "W8G")]
    [InlineData("compressed-tensors:FP8_DYNAMIC", "FP8G")]
    [InlineData("compressed-tensors:FP8_BLOCK", "FP8B128x128_BF16")]
    [InlineData("compressed-tensors:NVFP4A16", "NVFP4_GLOBAL")]
    [InlineData("compressed-tensors:MXFP4A16", "MXFP4")]
    [InlineData("compressed-tensors:MXFP8A16", "MXFP8G32")]
    [InlineData("fp8:tensor", "FP8_TENSOR")]
    [InlineData("fp8:block", "FP8B128x128_F32")]
    public void EveryMatrixReadsBackAsItWasEncoded(string scheme, string typeName)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Wide);
        Convert(source, "out", scheme, new RunContext { Threads = 1 });
        Convert(source, "shards", scheme, new RunContext { Threads = 5 }, maxShardBytes: 60_000);
        using Checkpoint before = Checkpoint.Open(source, new RunContext()), after = Checkpoint.Open(_folder.File("out"), new RunContext()), cut = Checkpoint.Open(_folder.File("shards"), new RunContext());
        Assert.True(cut.WeightPaths.Count > 2);
        int packed = 0;
        foreach (TensorEntry entry in after.Tensors.Tensors)
        {
            float[] found = after.Tensors.ReadAll(entry), expected = before.Tensors.ReadAll(before.Tensors.Find(entry.Name)!);
            Assert.Equal(found, cut.Tensors.ReadAll(cut.Tensors.Find(entry.Name)!));
            if (entry.Type.IsQuantized)
            {
                Assert.StartsWith(typeName, entry.Type.Name, StringComparison.Ordinal);
                byte[] encoded = new byte[entry.ByteLength];
                SolverCatalog.RoundToNearest.Encode(new RowSlab(entry.Name, 0, (int)entry.Shape.RowLength, expected), entry.Type, Effort.Normal, encoded);
                entry.Type.Decode(encoded, expected);
                packed++;
            }

            Assert.Equal(expected, found);
        }

        Assert.Equal(14, packed);
    }

    /// <summary>Engines fuse q, k and v, and gate and up, under one scale; experts have their own.</summary>
    [Theory]
    [InlineData("compressed-tensors:NVFP4A16")]
    [InlineData("fp8:tensor")]
    public void ScalesOfMatricesAreOneForWhatIsFused(string scheme)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Moe);
        Convert(source, "out", scheme);
        using Checkpoint before = Checkpoint.Open(source, new RunContext()), after = Checkpoint.Open(_folder.File("out"), new RunContext());
        const string layer = "model.layers.1.";
        foreach (string[] unit in new[] { new[] { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj" }, ["mlp.experts.2.gate_proj", "mlp.experts.2.up_proj"], ["mlp.experts.2.down_proj"], ["mlp.shared_expert.down_proj"] })
        {
            float largest = unit.Max(name => before.Tensors.ReadAll(before.Tensors.Find($"{layer}{name}.weight")!).Max(MathF.Abs));
            foreach (string name in unit)
            {
                ElementType type = after.Tensors.Find($"{layer}{name}.weight")!.Type;
                Assert.Equal(type is Nvfp4Type nvfp4 ? 2688 / nvfp4.Divisor : ((Fp8TensorType)type).Scale * 448, largest, 1e-6f * largest);
            }
        }
    }

    [Fact]
    public void WhatDoesNotFitTilesIsIgnoredByName()
    {
        ConversionReport report = Convert(TestCheckpoint.Write(_folder.File("source"), Moe), "out", "compressed-tensors:FP8_BLOCK");
        Assert.Contains(report.Events, item => item.IsSubstitution && item.Tensor == "model.layers.0.mlp.experts.0.gate_proj.weight");
        string[] ignored = [.. Config("out")["ignore"]!.AsArray().Select(name => (string)name!)];
        Assert.Equal(["lm_head", @"re:.*mlp\.gate$", @"re:.*shared_expert_gate$"], ignored[..3]);
        Assert.Contains("model.layers.0.mlp.experts.0.gate_proj", ignored);
        Assert.DoesNotContain("model.layers.0.mlp.shared_expert.gate_proj", ignored);
        using Checkpoint reopened = Checkpoint.Open(_folder.File("out"), new RunContext());
        Assert.Same(PlainTypes.BF16, reopened.Tensors.Find("model.layers.0.mlp.experts.0.gate_proj.weight")!.Type);
        Assert.Equal("FP8B128x128_BF16", reopened.Tensors.Find("model.layers.0.mlp.shared_expert.gate_proj.weight")!.Type.Name);
    }

    [Fact]
    public void PlainFp8HasItsOwnKeysAndNames()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Wide);
        Convert(source, "block", "fp8:BLOCK");
        Convert(source, "tensor", "FP8:tensor");
        Assert.True(JsonNode.DeepEquals(Parse("""{"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"], "modules_to_not_convert": ["lm_head"], "weight_block_size": [128, 128]}"""), Config("block")));
        Assert.True(JsonNode.DeepEquals(Parse("""{"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"], "modules_to_not_convert": ["lm_head"]}"""), Config("tensor")));
        using SafetensorsCheckpoint block = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File("block"), new ReadOptions()), tensor = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File("tensor"), new ReadOptions());
        Assert.Equal("F32 [2, 1]", $"{block.Find("model.layers.0.mlp.up_proj.weight_scale_inv")!.Type} {block.Find("model.layers.0.mlp.up_proj.weight_scale_inv")!.Shape}");
        Assert.Equal("F32 [1]", $"{tensor.Find("model.layers.0.mlp.up_proj.weight_scale")!.Type} {tensor.Find("model.layers.0.mlp.up_proj.weight_scale")!.Shape}");
    }

    /// <summary>A source that has the scheme already keeps its codes and its scales, also where its largest magnitude was cut off.</summary>
    [Theory]
    [InlineData("compressed-tensors:NVFP4A16")]
    [InlineData("compressed-tensors:FP8_BLOCK")]
    [InlineData("fp8:tensor")]
    public void TheSameSchemeAgainIsACopy(string scheme)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Wide, edit: (_, values) => values[5] *= 1.7f);
        Convert(source, "once", scheme);
        Convert(_folder.File("once"), "twice", scheme);
        Assert.Equal(File.ReadAllBytes(_folder.File("once/model.safetensors")), File.ReadAllBytes(_folder.File("twice/model.safetensors")));
    }

    [Theory]
    [InlineData("compressed-tensors:W3A16")]
    [InlineData("compressed-tensors:W4A16-g48")]
    [InlineData("compressed-tensors:FP8_BLOCK-g64")]
    [InlineData("compressed-tensors:FP8_DYNAMIC-actorder")]
    [InlineData("fp8:channel")]
    public void OtherSchemesAreRefused(string text) => Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => PackedScheme.Parse(text)).Kind);

    private static JsonObject Parse(string json) => JsonNode.Parse(json)!.AsObject();

    private JsonNode Config(string output) => JsonNode.Parse(File.ReadAllBytes(_folder.File($"{output}/config.json")))!["quantization_config"]!;

    private ConversionPlan Plan(string model, string scheme)
    {
        using Checkpoint source = Checkpoint.Open(model, new RunContext());
        return PackedPlanner.Plan(source, PackedScheme.Parse(scheme)!, new QuantizationOptions(), _folder.File("planned"), long.MaxValue, new RunContext());
    }

    private ConversionReport Convert(string model, string output, string scheme, RunContext? context = null, long maxShardBytes = long.MaxValue)
    {
        context ??= new RunContext();
        using Checkpoint source = Checkpoint.Open(model, context);
        ConversionPlan plan = PackedPlanner.Plan(source, PackedScheme.Parse(scheme)!, new QuantizationOptions(), _folder.File(output), maxShardBytes, context);
        return new Conversion(source, plan, new ConversionOptions(scheme), context).Run();
    }
}
