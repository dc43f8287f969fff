using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>One exception of a recipe: the type of the tensors that meet all its conditions; a condition that is null is met.</summary>
public sealed record RecipeRule
{
    /// <summary>Type that they get.</summary>
    public required ElementType Type { get; init; }

    /// <summary>Type where a row is not whole blocks of <see cref="Type"/>; null for the one that <see cref="RecipeBook.Fallbacks"/> has.</summary>
    public ElementType? Fallback { get; init; }

    /// <summary>Categories of <see cref="TensorCategory"/>; empty for all tensors that may be quantized.</summary>
    public IReadOnlyList<string> Tensors { get; init; } = [];

    /// <summary>Layer of the tensor, from 0.</summary>
    public NumberRange? Layers { get; init; }

    /// <summary>Place among all tensors of its category in file order, from 0: not the layer where a layer has two of them.</summary>
    public NumberRange? Place { get; init; }

    /// <summary>Query heads for each key/value head.</summary>
    public NumberRange? Gqa { get; init; }

    /// <summary>Routed experts of a layer, 0 in a dense model.</summary>
    public NumberRange? Experts { get; init; }

    public NumberRange? LayerCount { get; init; }

    /// <summary>Whether an importance matrix is used.</summary>
    public bool? Imatrix { get; init; }

    /// <summary>Whether the tensor is a stack of experts, of three dimensions.</summary>
    public bool? Stacked { get; init; }

    /// <summary>Only where the rules so far chose one of these types; empty for any.</summary>
    public IReadOnlyList<ElementType> Replaces { get; init; } = [];

    /// <summary>True when the rule speaks of this tensor, for which the rules before it chose <paramref name="current"/>.</summary>
    public bool Matches(string ggufName, Shape shape, ElementType current, ModelTraits model) =>
        (Tensors.Count == 0 || (model.CategoryOf(ggufName) is { } category && Tensors.Contains(category)))
        && Holds(Layers, ModelTraits.LayerOf(ggufName), model.LayerCount)
        && Holds(Place, model.PlaceOf(ggufName), model.LayerCount)
        && Holds(Gqa, model.GroupedQueries, model.LayerCount)
        && Holds(Experts, model.ExpertCount, model.LayerCount)
        && Holds(LayerCount, model.LayerCount, model.LayerCount)
        && (Imatrix is null || Imatrix == model.HasImatrix)
        && (Stacked is null || Stacked == shape.Rank > 2)
        && (Replaces.Count == 0 || Replaces.Contains(current));

    private static bool Holds(NumberRange? range, int? number, int layerCount) => range is null || (number is { } value && range.Contains(value, layerCount));
}
