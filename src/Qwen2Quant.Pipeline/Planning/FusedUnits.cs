using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>
/// The linears of the layers in the units that inference engines fuse: q, k and v; gate and up; all experts of a layer. A unit is packed whole and under one scheme, or not at all,
/// because its members are loaded under one configuration.
/// </summary>
internal sealed class FusedUnits
{
    private readonly Dictionary<string, PackedScheme> _asked = new(StringComparer.Ordinal);
    private readonly HashSet<string> _packed = new(StringComparer.Ordinal);

    /// <param name="overrides">Schemes of single modules.</param>
    /// <param name="fits">Whether a matrix can be packed so.</param>
    /// <exception cref="QuantException">Usage: an override parts a unit.</exception>
    public FusedUnits(TensorCatalogue catalogue, PackedScheme scheme, IReadOnlyList<ModuleOverride> overrides, Func<CanonicalTensor, PackedScheme, bool> fits)
    {
        Scheme = scheme;
        foreach (IGrouping<(int, string), CanonicalTensor> unit in catalogue.Tensors.Where(tensor => tensor.Role.IsLayerLinear()).GroupBy(tensor => (tensor.Layer, PatternOf(tensor.Role))))
        {
            Linears.AddRange(unit);
            PackedScheme? asked = AskedOf(unit.First());
            if (unit.FirstOrDefault(tensor => AskedOf(tensor) != asked) is { } other) throw Parted(unit.First(), asked, other, AskedOf(other));
            if (asked is null) continue;
            foreach (CanonicalTensor tensor in unit) _asked.Add(tensor.Name, asked);
            if (unit.All(tensor => fits(tensor, asked))) _packed.UnionWith(unit.Select(tensor => tensor.Name));
        }

        PackedScheme? AskedOf(CanonicalTensor tensor)
        {
            string name = tensor.Name.ToLowerInvariant();
            return overrides.FirstOrDefault(known => known.Pattern.IsMatch(name)) is { } found ? found.Scheme : scheme;
        }
    }

    /// <summary>Of all modules that no override names.</summary>
    public PackedScheme Scheme { get; }

    /// <summary>All linears of the layers, unit by unit.</summary>
    public List<CanonicalTensor> Linears { get; } = [];

    /// <summary>Names of the matrices that are packed.</summary>
    public IReadOnlySet<string> Packed => _packed;

    /// <summary>The scheme that a matrix was asked to have; null for those that stay plain.</summary>
    public PackedScheme? Asked(string name) => _asked.GetValueOrDefault(name);

    /// <summary>The scheme that a matrix is packed under; null for plain ones.</summary>
    public PackedScheme? SchemeOf(string name) => _packed.Contains(name) ? _asked[name] : null;

    /// <summary>The largest magnitude of each matrix whose scheme wants to know, and of those that engines fuse it with, of an expert gate and up; reads their weights.</summary>
    public IReadOnlyDictionary<string, float> FindLargest(ITensorSource source, RunContext context)
    {
        CanonicalTensor[] wanted = [.. Linears.Where(tensor => SchemeOf(tensor.Name) is { NeedsLargest: true })];
        float[] largest = new float[wanted.Length];
        Workers.Run(context.Threads, wanted.Length, static () => 0, (index, _) =>
        {
            TensorEntry entry = source.Find(wanted[index].Name)!;
            float[] row = new float[entry.Shape.RowLength];
            for (long at = 0; at < entry.Shape.RowCount; at++)
            {
                source.ReadRows(entry, at, 1, row);
                largest[index] = Math.Max(largest[index], FiniteCheck.LargestMagnitude(row));
            }
        }, context.Cancellation);
        Dictionary<string, float> found = new(StringComparer.Ordinal);
        foreach (var unit in wanted.Index().GroupBy(item => (item.Item.Layer, item.Item.Expert, item.Item.Role == TensorRole.ExpertDown, PatternOf(item.Item.Role))))
        {
            float most = unit.Max(item => largest[item.Index]);
            foreach (var item in unit) found.Add(item.Item.Name, most);
        }

        return found;
    }

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

    private static QuantException Parted(CanonicalTensor tensor, PackedScheme? scheme, CanonicalTensor other, PackedScheme? otherScheme) => new(ErrorKind.Usage, "--tensor-type gives matrices that readers fuse different types")
    {
        Tensor = other.Name,
        Found = $"{otherScheme?.ToString() ?? "plain"}, and {scheme?.ToString() ?? "plain"} for {tensor.Name}",
        Remedy = "Let one pattern find q, k and v, gate and up, or all experts of a layer: they are loaded under one configuration.",
    };
}
