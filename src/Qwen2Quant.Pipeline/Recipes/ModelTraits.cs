using System.Globalization;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>What the rules of a recipe may ask of a model.</summary>
public sealed class ModelTraits
{
    private const string BlockPrefix = "blk.";
    private readonly Dictionary<string, int> _places = new(StringComparer.Ordinal);

    /// <param name="tensors">All tensors of the file, in <see cref="GgufNames.Plan"/>'s order.</param>
    /// <param name="hasImatrix">True when an importance matrix will be used.</param>
    public ModelTraits(Qwen2Config config, IReadOnlyList<GgufTensor> tensors, bool hasImatrix)
    {
        LayerCount = config.NumHiddenLayers;
        GroupedQueries = config.NumAttentionHeads / config.NumKeyValueHeads;
        ExpertCount = config.IsMoe ? config.NumExperts : 0;
        HasImatrix = hasImatrix;
        IsTied = !tensors.Any(tensor => tensor.Name == TensorCategory.OutputName);
        Tensors = tensors;
        foreach (IGrouping<string?, GgufTensor> category in tensors.Where(tensor => TensorCategory.IsQuantizable(tensor.Name, tensor.Shape)).GroupBy(tensor => CategoryOf(tensor.Name)))
        {
            foreach ((int place, GgufTensor tensor) in category.Index()) _places.Add(tensor.Name, place);
        }
    }

    public IReadOnlyList<GgufTensor> Tensors { get; }
    public int LayerCount { get; }

    /// <summary>Query heads for each key/value head.</summary>
    public int GroupedQueries { get; }

    /// <summary>Routed experts of a layer, 0 in a dense model.</summary>
    public int ExpertCount { get; }

    public bool HasImatrix { get; }

    /// <summary>True when the token embedding is the output matrix as well.</summary>
    public bool IsTied { get; }

    /// <summary>The tensor's category, or null for one in none.</summary>
    public string? CategoryOf(string ggufName) => TensorCategory.Of(ggufName, IsTied);

    /// <summary>Place of a tensor among those of its category in file order, from 0.</summary>
    public int? PlaceOf(string ggufName) => _places.TryGetValue(ggufName, out int place) ? place : null;

    /// <summary>Layer of a tensor, or null outside the layers.</summary>
    public static int? LayerOf(string ggufName)
    {
        if (!ggufName.StartsWith(BlockPrefix, StringComparison.Ordinal)) return null;
        ReadOnlySpan<char> rest = ggufName.AsSpan(BlockPrefix.Length);
        int dot = rest.IndexOf('.');
        return dot > 0 && int.TryParse(rest[..dot], NumberStyles.None, CultureInfo.InvariantCulture, out int layer) ? layer : null;
    }
}
