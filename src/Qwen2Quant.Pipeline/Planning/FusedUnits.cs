using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>
/// The linears of the layers in the units that inference engines fuse: q, k and v; gate and up; all experts of a layer. A unit is packed whole or not at all,
/// because its members are loaded under one configuration.
/// </summary>
internal sealed class FusedUnits
{
    private readonly HashSet<string> _packed = new(StringComparer.Ordinal);

    /// <param name="fits">Whether a matrix can be packed.</param>
    public FusedUnits(TensorCatalogue catalogue, Func<CanonicalTensor, bool> fits)
    {
        foreach (IGrouping<(int, string), CanonicalTensor> unit in catalogue.Tensors.Where(tensor => tensor.Role.IsLayerLinear()).GroupBy(tensor => (tensor.Layer, PatternOf(tensor.Role))))
        {
            Linears.AddRange(unit);
            if (unit.All(fits)) _packed.UnionWith(unit.Select(tensor => tensor.Name));
        }
    }

    /// <summary>All linears of the layers, unit by unit.</summary>
    public List<CanonicalTensor> Linears { get; } = [];

    /// <summary>Names of the matrices that are packed.</summary>
    public IReadOnlySet<string> Packed => _packed;

    /// <summary>Names of a role's unit as a regular expression at the end of a module's name: of its members and, as vLLM looks for that, of the unit.</summary>
    public static string PatternOf(TensorRole role) => role switch
    {
        TensorRole.AttentionQ or TensorRole.AttentionK or TensorRole.AttentionV => @"self_attn\.(?:q_proj|k_proj|v_proj|qkv_proj)$",
        TensorRole.AttentionO => @"self_attn\.o_proj$",
        TensorRole.FfnGate or TensorRole.FfnUp => @"mlp\.(?:gate_proj|up_proj|gate_up_proj)$",
        TensorRole.FfnDown => @"mlp\.down_proj$",
        TensorRole.SharedFfnGate or TensorRole.SharedFfnUp => @"mlp\.shared_expert\.(?:gate_proj|up_proj|gate_up_proj)$",
        TensorRole.SharedFfnDown => @"mlp\.shared_expert\.down_proj$",
        _ => @"mlp\.experts(?:$|\.)",
    };
}
