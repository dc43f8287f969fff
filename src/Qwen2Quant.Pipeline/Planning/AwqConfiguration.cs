using System.Text.Json.Nodes;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>The <c>quantization_config</c> of an AWQ checkpoint, with the keys of AutoAWQ.</summary>
internal static class AwqConfiguration
{
    public static JsonObject Write(AwqScheme scheme, FusedUnits units, TensorCatalogue catalogue)
    {
        string[] plain = [.. PlainModules(units, catalogue)];
        return new JsonObject
        {
            ["quant_method"] = "awq",
            ["bits"] = 4,
            ["group_size"] = scheme.GroupSize,
            ["zero_point"] = true,
            ["version"] = "gemm",
            ["modules_to_not_convert"] = plain.Length == 0 ? null : new JsonArray([.. plain.Select(name => (JsonNode?)JsonValue.Create(name))]),
        };
    }

    /// <summary>
    /// Linears of layers that stay plain. Readers look for these texts inside module names, so that they are whole paths, from the layer on where all layers
    /// agree: <c>mlp.gate</c> alone would also be found in <c>mlp.gate_proj</c>, which models without dense layers do not have.
    /// </summary>
    private static IEnumerable<string> PlainModules(FusedUnits units, TensorCatalogue catalogue)
    {
        bool hasDense = catalogue.Tensors.Any(tensor => tensor.Role == TensorRole.FfnGate);
        HashSet<string> names = new(StringComparer.Ordinal);
        foreach (CanonicalTensor tensor in catalogue.Tensors)
        {
            bool isRouter = tensor.Role is TensorRole.Router or TensorRole.SharedExpertGate;
            if (!isRouter && (!tensor.Role.IsLayerLinear() || units.Packed.Contains(tensor.Name))) continue;
            string module = PackedLayout.Module(tensor.Name);
            string name = isRouter && !hasDense ? module[$"model.layers.{tensor.Layer}.".Length..] : module;
            if (names.Add(name)) yield return name;
        }
    }
}
