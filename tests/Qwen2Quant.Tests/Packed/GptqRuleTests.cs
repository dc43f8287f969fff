using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Tests.Rules;

namespace Qwen2Quant.Tests.Packed;

/// <summary>One input for each rule of packed checkpoints that breaks it, and one that just satisfies it.</summary>
public class GptqRuleTests
{
    [Fact]
    public void EveryRuleHasItsCases()
    {
        List<RuleCase> cases = [.. Cases()];
        RuleCase.CheckCoverage(cases, PackedRules.All, []);
        foreach (RuleCase item in cases) item.Check();
    }

    [Fact]
    public void DynamicRulesNameModulesFromTheirStart()
    {
        GptqSettings settings = Settings("""{"bits": 4, "group_size": 128, "sym": true, "dynamic": {"-:.*\\.o_proj$": {}, "+:model\\.layers\\.1\\.": {"bits": 8, "group_size": 64}, "layers": {"bits": 2}}}""");
        Assert.Null(settings.For("model.layers.1.self_attn.o_proj"));
        Assert.Equal(new GptqModuleSettings(8, 64, true), settings.For("model.layers.1.mlp.up_proj"));
        Assert.Equal(new GptqModuleSettings(4, 128, true), settings.For("model.layers.2.mlp.up_proj"));
    }

    [Fact]
    public void AModuleOfOtherBitsIsReadWithThem()
    {
        MemoryModules source = Module(8, 32);
        using PackedCheckpoint view = Open(source, """{"bits": 4, "group_size": 128, "dynamic": {"m": {"bits": 8, "group_size": 32}}}""");
        Assert.Equal("W8G32", view.Find("m.weight")!.Type.Name);
    }

    [Fact]
    public void ErrorsNameFileTensorAndWhatWasExpected()
    {
        QuantException error = Assert.Throws<QuantException>(() => Open(Module(4, 32).With("m.scales", PlainTypes.F16, 3, 32), """{"bits": 4, "group_size": 32}"""));
        Assert.Contains("folder: a part of a packed module does not have the shape that bits and groups ask for 'm.scales': found [3, 32], expected 2 groups of 32 for 64 inputs [PK-3]", error.Message, StringComparison.Ordinal);
    }

    internal static GptqSettings Settings(string json) => GptqSettings.Read(ConfigJson.Parse(Encoding.UTF8.GetBytes(json), "quantize_config.json", Limits.Default, PackedRules.Configuration), "quantize_config.json");

    private static IEnumerable<RuleCase> Cases()
    {
        foreach ((string name, string json) in new[]
        {
            ("5 bits", """{"bits": 5}"""),
            ("no bits", """{"group_size": 128}"""),
            ("bits 0", """{"bits": 0}"""),
            ("groups of 48", """{"bits": 4, "group_size": 48}"""),
            ("marlin", """{"bits": 4, "checkpoint_format": "marlin"}"""),
            ("marlin by its flag", """{"bits": 4, "is_marlin_format": true}"""),
            ("16-bit words", """{"bits": 4, "pack_dtype": "int16"}"""),
            ("a rotation", """{"bits": 4, "rotation": "hadamard"}"""),
            ("a pattern that is none", """{"bits": 4, "dynamic": {"(": {"bits": 8}}}"""),
            ("5 bits for a module", """{"bits": 4, "dynamic": {"m": {"bits": 5}}}"""),
            ("bits as text", """{"bits": "four"}"""),
        })
        {
            yield return new RuleCase(PackedRules.Configuration, name, name is "no bits" or "bits 0" or "a pattern that is none" or "bits as text" ? ErrorKind.InvalidInput : ErrorKind.Unsupported, () => Settings(json));
        }

        yield return new RuleCase(PackedRules.Configuration, "what AutoGPTQ wrote", null, () => Settings("""{"bits": 4, "group_size": -1, "damp_percent": 0.01, "desc_act": true, "sym": true, "true_sequential": true, "model_name_or_path": null}"""));
        yield return Case(PackedRules.Parts, "no zeros", Module(4, 32).Without("m.qzeros"));
        yield return Case(PackedRules.Parts, "no codes", Module(4, 32).With("n.scales", PlainTypes.F16, 2, 32));
        yield return Case(PackedRules.Parts, "a plain weight beside", Module(4, 32).With("m.weight", PlainTypes.BF16, 32, 64));
        yield return Case(PackedRules.Parts, "nothing packed", new MemoryModules().With("m.weight", PlainTypes.BF16, 32, 64));
        yield return new RuleCase(PackedRules.Parts, "packed and said to be plain", ErrorKind.InvalidInput, () => Open(Module(4, 32), """{"bits": 4, "dynamic": {"-:m": {}}}"""));
        yield return Case(PackedRules.Parts, "no g_idx", Module(4, 32).Without("m.g_idx"), null);
        yield return Case(PackedRules.Shapes, "codes of another type", Module(4, 32).With("m.qweight", PlainTypes.U32, 8, 32), ErrorKind.Unsupported);
        yield return Case(PackedRules.Shapes, "scales of single precision", Module(4, 32).With("m.scales", PlainTypes.F32, 2, 32), ErrorKind.Unsupported);
        yield return Case(PackedRules.Shapes, "words that 4 bits do not fill", Module(4, 32).With("m.qweight", PlainTypes.I32, 9, 32));
        yield return Case(PackedRules.Shapes, "outputs that split words", Module(4, 32).With("m.qweight", PlainTypes.I32, 8, 36));
        yield return Case(PackedRules.Shapes, "no outputs", Module(4, 32).With("m.qweight", PlainTypes.I32, 1L << 40, 0));
        yield return Case(PackedRules.Shapes, "groups that do not divide", Module(4, 32).With("m.scales", PlainTypes.F16, 3, 32));
        yield return Case(PackedRules.Shapes, "zeros of another shape", Module(4, 32).With("m.qzeros", PlainTypes.I32, 2, 8));
        yield return Case(PackedRules.Shapes, "a vector of codes", Module(4, 32).With("m.qweight", PlainTypes.I32, 256));
        yield return new RuleCase(PackedRules.Shapes, "groups of another size than it says", ErrorKind.InvalidInput, () => Open(Module(4, 32), """{"bits": 4, "group_size": 64}"""));
        yield return new RuleCase(PackedRules.Shapes, "whole rows", null, () => Open(Module(4, 64), """{"bits": 4, "group_size": -1}"""));
        yield return new RuleCase(PackedRules.Shapes, "a size that it does not say", null, () => Open(Module(4, 32)));
        yield return Case(PackedRules.Groups, "a group that there is not", Module(4, 32, groups => groups[3] = 2));
        yield return Case(PackedRules.Groups, "a negative group", Module(4, 32, groups => groups[3] = -1));
        yield return Case(PackedRules.Groups, "a group with one input more", Module(4, 32, groups => groups[32] = 0));
        yield return Case(PackedRules.Groups, "g_idx of another length", Module(4, 32).With("m.g_idx", PlainTypes.I32, 65));
        yield return Case(PackedRules.Groups, "two inputs exchanged", Module(4, 32, groups => (groups[3], groups[40]) = (1, 0)), null);
        yield return new RuleCase(PackedRules.SymmetricZeros, "zeros that are not the middle", ErrorKind.InvalidInput, () => ReadFirst(Module(4, 32, zeros: 0x66666666)));
        yield return new RuleCase(PackedRules.SymmetricZeros, "version 2's zeros as version 1", ErrorKind.InvalidInput, () => ReadFirst(Module(4, 32, zeros: 0x88888888)));
        yield return new RuleCase(PackedRules.SymmetricZeros, "the middle", null, () => ReadFirst(Module(4, 32)));
    }

    // The length of g_idx is a matter of shapes.
    private static RuleCase Case(Rule rule, string name, MemoryModules source, ErrorKind? refusal = ErrorKind.InvalidInput) =>
        name == "g_idx of another length" ? new RuleCase(PackedRules.Shapes, name, refusal, () => Open(source)) : new RuleCase(rule, name, refusal, () => Open(source));

    private static PackedCheckpoint Open(MemoryModules source, string json = """{"bits": 4}""") => PackedCheckpoint.Over(source, new GptqModules(source, Settings(json), "folder"), "folder");

    private static float[] ReadFirst(MemoryModules source)
    {
        using PackedCheckpoint view = Open(source);
        return view.ReadAll(view.Find("m.weight")!);
    }

    /// <summary>A module of 64 inputs and 32 outputs.</summary>
    private static MemoryModules Module(int bits, int group, Action<int[]>? edit = null, uint zeros = 0x77777777)
    {
        int[] groups = [.. Enumerable.Range(0, 64).Select(input => input / group)];
        edit?.Invoke(groups);
        MemoryModules modules = new MemoryModules()
            .With("m.qweight", PlainTypes.I32, 64 * bits / 32, 32)
            .With("m.qzeros", PlainTypes.I32, 64 / group, bits)
            .With("m.scales", PlainTypes.F16, 64 / group, 32)
            .With("m.g_idx", PlainTypes.I32, 64);
        modules.Fill("m.qzeros", i => BitConverter.GetBytes(zeros)[i % 4]);
        modules.Fill("m.g_idx", i => BitConverter.GetBytes(groups[i / 4])[i % 4]);
        return modules;
    }
}
