using System.Text.Json.Nodes;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>The <c>quantization_config</c> of a compressed-tensors checkpoint, with keys that every version of its readers knows: they refuse others inside groups.</summary>
internal static class CtConfiguration
{
    public static JsonObject Write(CtScheme scheme, FusedUnits units, TensorCatalogue catalogue) => new()
    {
        ["quant_method"] = "compressed-tensors",
        ["format"] = scheme.Preset.Format,
        ["quantization_status"] = "compressed",
        ["global_compression_ratio"] = null,
        ["kv_cache_scheme"] = null,
        ["ignore"] = new JsonArray([.. Ignored(units, catalogue).Select(name => (JsonNode?)JsonValue.Create(name))]),
        ["config_groups"] = new JsonObject
        {
            ["group_0"] = new JsonObject
            {
                ["targets"] = new JsonArray("Linear"),
                ["weights"] = Weights(scheme),
                ["input_activations"] = scheme.Preset.Activations is { } type ? Arguments(8, type, scheme.Preset.IsStatic ? "tensor" : "token", null, isDynamic: !scheme.Preset.IsStatic, null) : null,
                ["output_activations"] = null,
            },
        },
    };

    /// <summary>Plain fp8: the list of modules that stay plain under the name that vLLM looks for and that of Transformers.</summary>
    public static JsonObject WriteFp8(FusedUnits units, TensorCatalogue catalogue)
    {
        string[] plain = ["lm_head", .. catalogue.Tensors.Where(tensor => tensor.Role is TensorRole.Router or TensorRole.SharedExpertGate || (tensor.Role.IsLayerLinear() && !units.Packed.Contains(tensor.Name))).Select(tensor => PackedLayout.Module(tensor.Name))];
        JsonArray Names() => new([.. plain.Select(name => (JsonNode?)JsonValue.Create(name))]);
        return new JsonObject { ["quant_method"] = "fp8", ["activation_scheme"] = "dynamic", ["ignored_layers"] = Names(), ["modules_to_not_convert"] = Names() };
    }

    private static JsonObject Weights(CtScheme scheme)
    {
        CtPreset preset = scheme.Preset;
        string strategy = scheme.GroupSize switch { 0 => "tensor", -1 => "channel", _ => scheme.NeedsLargest ? "tensor_group" : "group" };
        JsonObject weights = Arguments(preset.Bits, preset.IsFloat ? "float" : "int", strategy, scheme.GroupSize <= 0 ? null : scheme.GroupSize, isDynamic: false, scheme.Visits == ColumnVisits.Natural ? null : "weight");
        weights["symmetric"] = preset.IsSymmetric;
        return weights;
    }

    private static JsonObject Arguments(int bits, string type, string strategy, int? groupSize, bool isDynamic, string? actOrder) => new()
    {
        ["num_bits"] = bits,
        ["type"] = type,
        ["symmetric"] = true,
        ["group_size"] = groupSize,
        ["strategy"] = strategy,
        ["block_structure"] = null,
        ["dynamic"] = isDynamic,
        ["actorder"] = actOrder,
        ["observer"] = isDynamic ? null : "minmax",
        ["observer_kwargs"] = new JsonObject(),
    };

    /// <summary>The output matrix, the routers of all layers as patterns, and linears that stay plain.</summary>
    private static IEnumerable<string> Ignored(FusedUnits units, TensorCatalogue catalogue)
    {
        yield return "lm_head";
        if (catalogue.Tensors.Any(tensor => tensor.Role == TensorRole.Router))
        {
            yield return @"re:.*mlp\.gate$";
            yield return @"re:.*shared_expert_gate$";
        }

        foreach (CanonicalTensor tensor in units.Linears.Where(tensor => !units.Packed.Contains(tensor.Name))) yield return PackedLayout.Module(tensor.Name);
    }
}
