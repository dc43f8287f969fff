using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Tests.Rules;

namespace Qwen2Quant.Tests.Packed;

/// <summary>One input of compressed-tensors or plain fp8 for each rule that breaks it, and one that just satisfies it.</summary>
public class CtReadingTests
{
    private const string Channels = """{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}, "format": "float-quantized"}""";
    private const string Words = """{"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}}}, "format": "pack-quantized"}""";

    [Fact]
    public void EveryRuleHasItsCases()
    {
        List<RuleCase> cases = [.. ConfigurationCases(), .. ModuleCases()];
        // Zeros of symmetric modules are not stored here.
        RuleCase.CheckCoverage(cases, [.. PackedRules.All.Where(rule => rule != PackedRules.SymmetricZeros)], []);
        foreach (RuleCase item in cases) item.Check();
    }

    /// <summary>Names and patterns go before the class of all linears, and each group has its own format.</summary>
    [Fact]
    public void GroupsOfDifferentFormatsLieInOneFolder()
    {
        const string json = """
            {"format": "mixed-precision", "config_groups": {
                "a": {"targets": ["Linear"], "format": "pack-quantized", "weights": {"num_bits": 4, "group_size": 32}},
                "b": {"targets": ["re:.*down$", "exact"], "format": "float-quantized", "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}},
                "c": {"targets": ["re:eight"], "format": "naive-quantized", "weights": {"num_bits": 8, "group_size": -1}},
                "d": {"targets": ["Attention"], "output_activations": null}}}
            """;
        MemoryModules source = WordsModule("m.up").With("m.down.weight", PlainTypes.F8E4M3, 32, 64).With("m.down.weight_scale", PlainTypes.F16, 32, 1)
            .With("exact.weight", PlainTypes.F8E4M3, 16, 32).With("exact.weight_scale", PlainTypes.F32, 16, 1)
            .With("eighth.weight", PlainTypes.I8, 16, 32).With("eighth.weight_scale", PlainTypes.BF16, 16, 1)
            .With("lm_head.weight", PlainTypes.BF16, 8, 8);
        using PackedCheckpoint view = Open(source, json);
        Assert.Equal(["m.up.weight W4G32_BF16", "m.down.weight FP8G64", "exact.weight FP8G32_F32", "eighth.weight W8G32_BF16", "lm_head.weight BF16"], view.Tensors.Select(entry => $"{entry.Name} {entry.Type.Name}"));
    }

    /// <summary>Scales of activations and of the key-value cache are not weights.</summary>
    [Fact]
    public void WhatBelongsToActivationsIsLeftOut()
    {
        MemoryModules source = Fp8Module().With("m.input_scale", PlainTypes.F32, 1).With("m.output_scale", PlainTypes.F32, 1).With("a.k_scale", PlainTypes.F32, 1).With("a.v_scale", PlainTypes.F32, 1);
        using PackedCheckpoint view = Open(source, Channels);
        Assert.Equal("m.weight", Assert.Single(view.Tensors).Name);
    }

    [Fact]
    public void AGroupIndexThatWasNeverSetIsNone()
    {
        MemoryModules source = WordsModule("m").With("m.weight_g_idx", PlainTypes.I32, 64);
        source.Fill("m.weight_g_idx", _ => 0xff);
        using PackedCheckpoint view = Open(source, Words);
        Assert.Equal("W4G32_BF16", view.Find("m.weight")!.Type.Name);
    }

    private static IEnumerable<RuleCase> ConfigurationCases()
    {
        yield return Configuration("sparse weights", ErrorKind.Unsupported, Channels[..^1] + """, "sparsity_config": {"format": "sparse-24-bitmask"}}""");
        yield return Configuration("rotated activations", ErrorKind.Unsupported, Channels[..^1] + """, "transform_config": {"config_groups": {"R4": {}}}}""");
        yield return Configuration("a pattern that is none", ErrorKind.InvalidInput, Channels.Replace("\"Linear\"", "\"re:(\"", StringComparison.Ordinal));
        yield return Configuration("a format of its own for a group", ErrorKind.Unsupported, Channels.Replace("\"weights\"", "\"format\": \"marlin-24\", \"weights\"", StringComparison.Ordinal));
        yield return Configuration("mixed precision without a format", ErrorKind.Unsupported, Channels.Replace("float-quantized", "mixed-precision", StringComparison.Ordinal));
        yield return Configuration("a block without its structure", ErrorKind.Unsupported, Channels.Replace("channel", "block", StringComparison.Ordinal));
        yield return Configuration("objects that are empty", null, Channels[..^1] + """, "sparsity_config": {}, "transform_config": {}}""");
        yield return Configuration("the first name of a format", null, Channels.Replace("float-quantized", "naive-quantized", StringComparison.Ordinal));
        yield return new RuleCase(PackedRules.Configuration, "a pattern without end", ErrorKind.InvalidInput, () => Settings(Channels.Replace("\"Linear\"", "\"re:(a+)+$\"", StringComparison.Ordinal)).For(new string('a', 40) + "!")!);
        yield return new RuleCase(PackedRules.Configuration, "a scheme of activations that there is not", ErrorKind.Unsupported, () => Fp8Settings("""{"activation_scheme": "sometimes"}"""));
        yield return new RuleCase(PackedRules.Configuration, "static activations", null, () => Fp8Settings("""{"activation_scheme": "static", "ignored_layers": ["lm_head"], "modules_to_not_convert": null}"""));

        static RuleCase Configuration(string name, ErrorKind? refusal, string json) => new(PackedRules.Configuration, name, refusal, () => Settings(json));
    }

    private static IEnumerable<RuleCase> ModuleCases()
    {
        yield return Module(PackedRules.Parts, "codes without scales", Fp8Module().Without("m.weight_scale"), Channels);
        yield return Module(PackedRules.Parts, "integers without scales", new MemoryModules().With("m.weight", PlainTypes.I8, 32, 64), Channels);
        yield return Module(PackedRules.Parts, "scales without codes", Fp8Module().With("n.weight_scale", PlainTypes.BF16, 32, 1), Channels);
        yield return Module(PackedRules.Parts, "a module that no group names", Fp8Module(), Channels.Replace("Linear", "other", StringComparison.Ordinal));
        yield return Module(PackedRules.Parts, "a plain matrix beside", Fp8Module().With("n.weight", PlainTypes.BF16, 32, 64), Channels, null);
        yield return new RuleCase(PackedRules.Parts, "scales of tiles that the configuration does not say", ErrorKind.InvalidInput, () => OpenFp8(TilesModule(), "{}"));
        yield return Module(PackedRules.Shapes, "floats of another kind", Fp8Module().With("m.weight", PlainTypes.F8E5M2, 32, 64), Channels, ErrorKind.Unsupported);
        yield return Module(PackedRules.Shapes, "scales of another count", Fp8Module().With("m.weight_scale", PlainTypes.BF16, 31, 1), Channels);
        yield return Module(PackedRules.Shapes, "a group index of another length", WordsModule("m").With("m.weight_g_idx", PlainTypes.I32, 63), Words);
        yield return new RuleCase(PackedRules.Shapes, "inputs that split a tile", ErrorKind.InvalidInput, () => OpenFp8(TilesModule(), """{"weight_block_size": [16, 48]}"""));
        yield return new RuleCase(PackedRules.Shapes, "tiles", null, () => OpenFp8(TilesModule(), """{"weight_block_size": [16, 32]}"""));
        yield return Module(PackedRules.Groups, "a group that there is not", WithGroups(2), Words);
        yield return Module(PackedRules.Groups, "inputs in their order", WithGroups(1), Words, null);
    }

    private static RuleCase Module(Rule rule, string name, MemoryModules source, string json, ErrorKind? refusal = ErrorKind.InvalidInput) => new(rule, name, refusal, () => Open(source, json));

    private static PackedCheckpoint Open(MemoryModules source, string json) => PackedCheckpoint.Over(source, new CtModules(source, Settings(json), "folder"), "folder");

    private static PackedCheckpoint OpenFp8(MemoryModules source, string json) => PackedCheckpoint.Over(source, new CtModules(source, Fp8Settings(json), "folder"), "folder");

    private static CtSettings Settings(string json) => CtSettings.Read(Json(json), "config.json");

    private static CtSettings Fp8Settings(string json) => CtSettings.ReadFp8(Json(json), "config.json");

    private static ConfigJson Json(string json) => ConfigJson.Parse(Encoding.UTF8.GetBytes(json), "config.json", Limits.Default, PackedRules.Configuration);

    private static MemoryModules Fp8Module() => new MemoryModules().With("m.weight", PlainTypes.F8E4M3, 32, 64).With("m.weight_scale", PlainTypes.BF16, 32, 1);

    private static MemoryModules TilesModule() => new MemoryModules().With("m.weight", PlainTypes.F8E4M3, 32, 64).With("m.weight_scale_inv", PlainTypes.F32, 2, 2);

    private static MemoryModules WordsModule(string name) => new MemoryModules().With(name + ".weight_packed", PlainTypes.I32, 32, 8).With(name + ".weight_scale", PlainTypes.BF16, 32, 2);

    private static MemoryModules WithGroups(byte last)
    {
        MemoryModules source = WordsModule("m").With("m.weight_g_idx", PlainTypes.I32, 64);
        source.Fill("m.weight_g_idx", i => i % 4 == 0 && i / 4 >= 32 ? last : (byte)0);
        return source;
    }
}
