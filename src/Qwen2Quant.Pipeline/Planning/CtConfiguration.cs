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
                ["input_activations"] = Activations(scheme.Preset),
                ["output_activations"] = null,
            },
        },
    };

    /// <summary>Plain fp8: the list of modules that stay plain under the name that vLLM looks for and that of Transformers.</summary>
    public static JsonObject WriteFp8(Fp8Scheme scheme, FusedUnits units, TensorCatalogue catalogue)
    {
        string[] plain = ["lm_head", .. catalogue.Tensors.Where(tensor => tensor.Role is TensorRole.Router or TensorRole.SharedExpertGate || (tensor.Role.IsLayerLinear() && !units.Packed.Contains(tensor.Name))).Select(tensor => PackedLayout.Module(tensor.Name))];
        JsonArray Names() => new([.. plain.Select(name => (JsonNode?)JsonValue.Create(name))]);
        JsonObject json = new() { ["quant_method"] = "fp8", ["activation_scheme"] = "dynamic", ["ignored_layers"] = Names(), ["modules_to_not_convert"] = Names() };
        if (scheme.IsBlock) json["weight_block_size"] = new JsonArray(Fp8Scheme.TileLength, Fp8Scheme.TileLength);
        return json;
    }

    private static JsonObject Weights(CtScheme scheme)
    {
        CtPreset preset = scheme.Preset;
        bool isTiled = preset.TileRows > 1;
        string strategy = isTiled ? "block" : scheme.GroupSize switch { 0 => "tensor", -1 => "channel", _ => scheme.IsNvfp4 ? "tensor_group" : "group" };
        JsonObject weights = Arguments(preset.Bits, preset.IsFloat ? "float" : "int", strategy, isTiled || scheme.GroupSize <= 0 ? null : scheme.GroupSize, isDynamic: false, scheme.Visits == ColumnVisits.Natural ? null : "weight");
        weights["symmetric"] = preset.IsSymmetric;
        if (isTiled) weights["block_structure"] = new JsonArray(preset.TileRows, scheme.GroupSize);
        // Readers of these formats know the key, and take scales for the model's type without it.
        if (scheme.IsNvfp4) weights["scale_dtype"] = "torch.float8_e4m3fn";
        if (scheme.IsMicroscaled) weights["scale_dtype"] = "torch.uint8";
        return weights;
    }

    private static JsonObject? Activations(CtPreset preset)
    {
        if (preset.Activations is not { } type) return null;
        return preset.TileRows > 1 ? Arguments(8, type, "group", preset.GroupSize, isDynamic: true, null) : Arguments(8, type, preset.IsStatic ? "tensor" : "token", null, isDynamic: !preset.IsStatic, null);
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
