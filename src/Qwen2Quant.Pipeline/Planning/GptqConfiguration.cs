using System.Text.Json.Nodes;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>
/// The <c>quantization_config</c> of a GPTQ checkpoint, with every key that AutoGPTQ, GPTQModel, Transformers, vLLM and SGLang look for, since their defaults differ.
/// </summary>
internal static class GptqConfiguration
{
    /// <summary>Transformers refuses a configuration without a damping between 0 and 1, both excluded, whatever the method was.</summary>
    private const double LeastDamping = 1e-6, GreatestDamping = 0.999;

    // In the order in which sequential solvers quantize a layer.
    private static readonly TensorRole[][] Steps =
    [
        [TensorRole.AttentionQ, TensorRole.AttentionK, TensorRole.AttentionV],
        [TensorRole.AttentionO],
        [TensorRole.SharedFfnGate, TensorRole.SharedFfnUp, TensorRole.FfnGate, TensorRole.FfnUp, TensorRole.ExpertGate, TensorRole.ExpertUp],
        [TensorRole.SharedFfnDown, TensorRole.FfnDown, TensorRole.ExpertDown],
    ];

    public static JsonObject Write(GptqScheme scheme, FusedUnits units, double damping)
    {
        damping = Math.Clamp(damping, LeastDamping, GreatestDamping);
        bool isDescAct = scheme.Order == ColumnVisits.PermutedGroups, isStatic = scheme.Order == ColumnVisits.Activation;
        string format = scheme.IsV2 ? "gptq_v2" : "gptq";
        JsonObject json = new()
        {
            ["bits"] = scheme.Bits,
            ["group_size"] = scheme.GroupSize,
            ["desc_act"] = isDescAct,
            ["sym"] = scheme.IsSymmetric,
            ["lm_head"] = false,
            ["quant_method"] = "gptq",
            ["method"] = "gptq",
            ["checkpoint_format"] = format,
            ["format"] = format,
            ["pack_dtype"] = "int32",
            ["damp_percent"] = damping,
            ["true_sequential"] = true,
            ["static_groups"] = isStatic,
            ["meta"] = new JsonObject
            {
                ["quantizer"] = new JsonArray("qwen2quant:" + Conversion.Version),
                ["damp_percent"] = damping,
                ["static_groups"] = isStatic,
                ["true_sequential"] = true,
            },
        };
        List<CanonicalTensor> plain = [.. units.Linears.Where(tensor => !units.Packed.Contains(tensor.Name))];
        JsonObject dynamic = ModuleRules(scheme, units);
        if (dynamic.Count > 0) json["dynamic"] = dynamic;
        // Without this list Transformers takes every linear of a layer for packed, routers too.
        if (plain.Count > 0 || units.Linears.Exists(tensor => tensor.Role.IsExpert())) json["modules_in_block_to_quantize"] = Modules(units);
        return json;
    }

    /// <summary>A rule for each unit that is plain or has settings of its own, for all layers at once where they agree.</summary>
    private static JsonObject ModuleRules(GptqScheme scheme, FusedUnits units)
    {
        JsonObject rules = [];
        foreach (IGrouping<string, CanonicalTensor> kind in units.Linears.GroupBy(tensor => FusedUnits.PatternOf(tensor.Role)))
        {
            bool agree = kind.Select(tensor => units.SchemeOf(tensor.Name)).Distinct().Count() == 1;
            foreach (CanonicalTensor tensor in kind)
            {
                string pattern = (agree ? @".*\." : $@"model\.layers\.{tensor.Layer}\.") + kind.Key;
                if (units.SchemeOf(tensor.Name) is not GptqScheme own) rules[$"-:{pattern}"] = new JsonObject();
                else if (own != scheme) rules[$"+:{pattern}"] = new JsonObject { ["bits"] = own.Bits, ["group_size"] = own.GroupSize, ["sym"] = own.IsSymmetric };
            }
        }

        return rules;
    }

    /// <summary>Names inside a layer, each once, step by step.</summary>
    private static JsonArray Modules(FusedUnits units)
    {
        JsonArray steps = [];
        foreach (TensorRole[] step in Steps)
        {
            string[] names = [.. step.SelectMany(role => units.Linears.Where(tensor => tensor.Role == role && units.Packed.Contains(tensor.Name)).Select(NameInLayer)).Distinct(StringComparer.Ordinal)];
            if (names.Length > 0) steps.Add((JsonNode)new JsonArray([.. names.Select(name => (JsonNode?)JsonValue.Create(name))]));
        }

        return steps;
    }

    private static string NameInLayer(CanonicalTensor tensor)
    {
        string module = PackedLayout.Module(tensor.Name);
        return module[$"model.layers.{tensor.Layer}.".Length..];
    }
}
