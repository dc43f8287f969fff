using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Formats.Packed.Mlx;

namespace Qwen2Quant.Tests.Packed;

/// <summary>What AWQ, compressed-tensors and MLX checkpoints are refused for, beside one of each that is read.</summary>
public class OtherLayoutRuleTests
{
    private const string Int4 = """{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": false, "group_size": 32, "strategy": "group"}}}, "format": "pack-quantized"}""";
    private const string Tiles = """{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 32]}}}, "format": "float-quantized"}""";

    [Theory]
    [InlineData("""{"version": "gemv"}""", "gemv")]
    [InlineData("""{"version": "gemv_fast"}""", "gemv_fast")]
    [InlineData("""{"version": "marlin"}""", "marlin")]
    [InlineData("""{"bits": 8}""", "bits")]
    [InlineData("""{"w_bit": 3}""", "bits")]
    [InlineData("""{"zero_point": false}""", "zero_point")]
    [InlineData("""{"q_group_size": 48}""", "group_size")]
    public void AwqConfigurations(string json, string key) => Refused(() => AwqSettings.Read(Json(json), "config.json"), PackedRules.Configuration, key);

    [Theory]
    [InlineData("""{"format": "pack-quantized"}""", "config_groups")]
    [InlineData("""{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4}}}, "format": "marlin-24"}""", "format")]
    [InlineData("""{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 3, "group_size": 32}}}, "format": "pack-quantized"}""", "num_bits")]
    [InlineData("""{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 48}}}, "format": "pack-quantized"}""", "group_size")]
    [InlineData("""{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "group_size": 32}}}, "format": "pack-quantized"}""", "type")]
    [InlineData("""{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "attn_head"}}}, "format": "int-quantized"}""", "strategy")]
    [InlineData("""{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "symmetric": false, "strategy": "channel"}}}, "format": "int-quantized"}""", "symmetric")]
    public void CompressedTensorsConfigurations(string json, string key) => Refused(() => CtSettings.Read(Json(json), "config.json"), PackedRules.Configuration, key);

    [Theory]
    [InlineData("""{"mode": "mxfp4"}""", "mxfp4")]
    [InlineData("""{"mode": "nvfp4", "bits": 4, "group_size": 16}""", "nvfp4")]
    [InlineData("""{"mode": "mxfp8", "bits": 8, "group_size": 32}""", "mxfp8")]
    [InlineData("""{"bits": 4, "lm_head": {"mode": "mxfp4", "bits": 4, "group_size": 32}}""", "mxfp4")]
    [InlineData("""{"bits": 7}""", "bits")]
    [InlineData("""{"group_size": 48}""", "group_size")]
    [InlineData("""{"bits": 4, "model.layers.0.mlp.down_proj": {"bits": 1}}""", "bits")]
    public void MlxConfigurations(string json, string key) => Refused(() => MlxSettings.Read(Json(json), "config.json"), PackedRules.Configuration, key);

    [Fact]
    public void Fp8Configurations() => Refused(() => CtSettings.ReadFp8(Json("""{"weight_block_size": [128]}"""), "config.json"), PackedRules.Configuration, "weight_block_size");

    [Fact]
    public void AwqModulesAreWhole()
    {
        static PackedCheckpoint Open(MemoryModules source, string json = """{"group_size": 32}""") =>
            PackedCheckpoint.Over(source, new AwqModules(source, AwqSettings.Read(Json(json), "config.json"), "folder"), "folder");
        static MemoryModules Module() => new MemoryModules().With("m.qweight", PlainTypes.I32, 64, 4).With("m.qzeros", PlainTypes.I32, 2, 4).With("m.scales", PlainTypes.F16, 2, 32);
        using (PackedCheckpoint view = Open(Module(), "{}")) Assert.Equal("W4G32_ASYM [32, 64]", Describe(view));
        Refused(() => Open(Module().Without("m.qzeros")), PackedRules.Parts, "m.qzeros");
        Refused(() => Open(Module().Without("m.qweight")), PackedRules.Parts, "m.qweight");
        Refused(() => Open(Module().With("m.weight", PlainTypes.F16, 32, 64)), PackedRules.Parts, "m.weight");
        Refused(() => Open(Module().With("m.qweight", PlainTypes.U32, 64, 4)), PackedRules.Shapes, "m.qweight");
        Refused(() => Open(Module().With("m.qzeros", PlainTypes.I32, 2, 5)), PackedRules.Shapes, "m.qzeros");
        Refused(() => Open(Module(), """{"group_size": 64}"""), PackedRules.Shapes, "m.scales");
        Refused(() => Open(Module().Without("m.scales")), PackedRules.Parts, "m.scales");
        Refused(() => Open(Module().With("m.scales", PlainTypes.F32, 2, 32)), PackedRules.Shapes, "m.scales");
        Refused(() => Open(Module().With("m.scales", PlainTypes.F16, 3, 32), "{}"), PackedRules.Shapes, "m.scales");
        Refused(() => Open(Module().With("m.qweight", PlainTypes.I32, 64, 0)), PackedRules.Shapes, "m.qweight");
        Refused(() => Open(new MemoryModules().With("m.weight", PlainTypes.F16, 2, 2)), PackedRules.Parts, null);
    }

    [Fact]
    public void CompressedTensorsModulesAreWhole()
    {
        static PackedCheckpoint Open(MemoryModules source, string json = Int4) => PackedCheckpoint.Over(source, new CtModules(source, CtSettings.Read(Json(json), "config.json"), "folder"), "folder");
        static MemoryModules Module() => new MemoryModules()
            .With("m.weight_packed", PlainTypes.I32, 32, 8).With("m.weight_scale", PlainTypes.BF16, 32, 2).With("m.weight_zero_point", PlainTypes.I32, 4, 2);
        using (PackedCheckpoint view = Open(Module())) Assert.Equal("W4G32_ASYM_BF16 [32, 64]", Describe(view));
        Refused(() => Open(Module().Without("m.weight_scale")), PackedRules.Parts, "m.weight_scale");
        Refused(() => Open(Module().Without("m.weight_zero_point")), PackedRules.Parts, "m.weight_zero_point");
        Refused(() => Open(Module().With("m.weight_scale", PlainTypes.BF16, 32, 1)), PackedRules.Shapes, "m.weight_scale");
        Refused(() => Open(Module().With("m.weight_shape", PlainTypes.I64, 2)), PackedRules.Shapes, "m.weight_shape");
        Refused(() => Open(Module().With("m.weight_g_idx", PlainTypes.I32, 64)), PackedRules.Groups, "m.weight_g_idx");
        Refused(() => Open(Module(), Int4.Replace("pack-quantized", "int-quantized", StringComparison.Ordinal).Replace("4,", "8,", StringComparison.Ordinal).Replace("false", "true", StringComparison.Ordinal)), PackedRules.Parts, "m.weight_packed");
        Refused(() => Open(Module(), Int4.Replace("Linear", "re:other", StringComparison.Ordinal)), PackedRules.Parts, "m");
    }

    /// <summary>Scales for tiles of rows and columns, the last of which may have fewer rows; and plain fp8 under other names.</summary>
    [Fact]
    public void TilesHaveTheirScales()
    {
        MemoryModules source = new MemoryModules().With("m.weight", PlainTypes.F8E4M3, 40, 64).With("m.weight_scale", PlainTypes.BF16, 3, 2);
        source.Fill("m.weight", _ => 0x38);
        // 1, 2, 3 ... as bfloat16.
        source.Fill("m.weight_scale", i => (byte)(BitConverter.SingleToUInt32Bits(1 + (i / 2)) >> (i % 2 == 0 ? 16 : 24)));
        using PackedCheckpoint view = PackedCheckpoint.Over(source, new CtModules(source, CtSettings.Read(Json(Tiles), "config.json"), "folder"), "folder");
        float[] values = view.ReadAll(view.Find("m.weight")!);
        for (int row = 0; row < 40; row++)
        {
            for (int column = 0; column < 64; column++) Assert.Equal(1 + (row / 16 * 2) + (column / 32), values[(row * 64) + column]);
        }

        MemoryModules plain = new MemoryModules().With("m.weight", PlainTypes.F8E4M3, 40, 64).With("m.weight_scale", PlainTypes.F32, 1);
        plain.Fill("m.weight", _ => 0xB8);
        plain.Fill("m.weight_scale", i => BitConverter.GetBytes(0.5f)[i]);
        using PackedCheckpoint fp8 = PackedCheckpoint.Over(plain, new CtModules(plain, CtSettings.ReadFp8(Json("""{"activation_scheme": "dynamic"}"""), "config.json"), "folder"), "folder");
        Assert.All(fp8.ReadAll(fp8.Find("m.weight")!), value => Assert.Equal(-0.5f, value));
    }

    [Fact]
    public void MlxModulesAreWhole()
    {
        static PackedCheckpoint Open(MemoryModules source, string json = """{"bits": 3, "group_size": 32}""") => PackedCheckpoint.Over(source, new MlxModules(source, MlxSettings.Read(Json(json), "config.json"), "folder"), "folder");
        static MemoryModules Module() => new MemoryModules().With("m.weight", PlainTypes.U32, 32, 6).With("m.scales", PlainTypes.BF16, 32, 2).With("m.biases", PlainTypes.BF16, 32, 2);
        using (PackedCheckpoint view = Open(Module())) Assert.Equal("MLX3G32_BF16 [32, 64]", Describe(view));
        // Modules have their own settings under their whole path, which may have no dot, as lm_head's.
        using (PackedCheckpoint view = Open(Module(), """{"bits": 2, "group_size": 64, "mode": "affine", "m": {"bits": 3, "group_size": 32}, "m.x": {"bits": 8}, "a.m": false, "b": true}""")) Assert.Equal("MLX3G32_BF16 [32, 64]", Describe(view));
        using (PackedCheckpoint view = Open(Module().With("m.weight", PlainTypes.U32, 32, 16), """{"bits": 8, "group_size": 32}""")) Assert.Equal("MLX8G32_BF16 [32, 64]", Describe(view));
        Refused(() => Open(Module().Without("m.biases")), PackedRules.Parts, "m.biases");
        Refused(() => Open(Module().Without("m.scales")), PackedRules.Parts, "m.scales");
        Refused(() => Open(Module(), """{"bits": 3, "group_size": 32, "m": false}"""), PackedRules.Parts, "m");
        Refused(() => Open(Module().Without("m.weight")), PackedRules.Parts, "m.weight");
        Refused(() => Open(Module(), "{}"), PackedRules.Shapes, "m.weight");
        Refused(() => Open(Module().With("m.scales", PlainTypes.BF16, 32, 3)), PackedRules.Shapes, "m.scales");
        Refused(() => Open(Module().With("m.biases", PlainTypes.F16, 32, 2)), PackedRules.Shapes, "m.biases");
    }

    /// <summary>Stacked experts are the matrices of each.</summary>
    [Fact]
    public void StacksOfMlxAreTakenApart()
    {
        MemoryModules source = new MemoryModules().With("l.switch_mlp.up_proj.weight", PlainTypes.U32, 3, 4, 4).With("l.switch_mlp.up_proj.scales", PlainTypes.F16, 3, 4, 1).With("l.switch_mlp.up_proj.biases", PlainTypes.F16, 3, 4, 1);
        source.Fill("l.switch_mlp.up_proj.biases", i => (byte)(i % 2 == 0 ? 0 : 0x3C + (i / 8 * 4)));
        using PackedCheckpoint view = PackedCheckpoint.Over(source, new MlxModules(source, MlxSettings.Read(Json("""{"bits": 4, "group_size": 32}"""), "config.json"), "folder"), "folder");
        Assert.Equal(["l.experts.0.up_proj.weight", "l.experts.1.up_proj.weight", "l.experts.2.up_proj.weight"], view.Tensors.Select(entry => entry.Name));
        for (int expert = 0; expert < 3; expert++) Assert.All(view.ReadAll(view.Tensors[expert]), value => Assert.Equal(1 << expert, value));
        Refused(() => Open(new MemoryModules().With("l.switch_mlp.up_proj.weight", PlainTypes.U32, 4, 4).With("l.switch_mlp.up_proj.scales", PlainTypes.F16, 4, 1).With("l.switch_mlp.up_proj.biases", PlainTypes.F16, 4, 1), "{}"), PackedRules.Shapes, "l.switch_mlp.up_proj.weight");
        Refused(() => Open(source, """{"bits": 4, "group_size": 32, "l.switch_mlp.up_proj": {"bits": 8}}"""), PackedRules.Shapes, "l.switch_mlp.up_proj");

        // Experts one by one have the settings of their stack.
        MemoryModules apart = new MemoryModules().With("l.experts.1.up_proj.weight", PlainTypes.U32, 4, 8).With("l.experts.1.up_proj.scales", PlainTypes.F16, 4, 1).With("l.experts.1.up_proj.biases", PlainTypes.F16, 4, 1);
        using PackedCheckpoint one = Open(apart, """{"bits": 4, "group_size": 32, "l.switch_mlp.up_proj": {"bits": 8}}""");
        Assert.Equal("l.experts.1.up_proj.weight MLX8G32 [4, 32]", $"{one.Tensors[0].Name} {one.Tensors[0].Type} {one.Tensors[0].Shape}");

        static PackedCheckpoint Open(MemoryModules modules, string json) => PackedCheckpoint.Over(modules, new MlxModules(modules, MlxSettings.Read(Json(json), "config.json"), "folder"), "folder");
    }

    private static string Describe(PackedCheckpoint view)
    {
        TensorEntry entry = view.Find("m.weight")!;
        Assert.All(view.ReadAll(entry), value => Assert.True(float.IsFinite(value)));
        return $"{entry.Type} {entry.Shape}";
    }

    private static void Refused(Func<object> open, Rule rule, string? named)
    {
        QuantException error = Assert.Throws<QuantException>(open);
        Assert.Equal(rule, error.Rule);
        Assert.True(error.Kind is ErrorKind.InvalidInput or ErrorKind.Unsupported);
        if (named is not null) Assert.Contains(named, error.Message, StringComparison.Ordinal);
    }

    private static ConfigJson Json(string json) => ConfigJson.Parse(Encoding.UTF8.GetBytes(json), "config.json", Limits.Default, PackedRules.Configuration);
}
