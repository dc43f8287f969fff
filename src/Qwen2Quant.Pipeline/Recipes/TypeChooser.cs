using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>
/// Applies a recipe to the tensors of a model: the type wanted, the type that the shape allows, and an event where these differ.
/// Layers are counted by the tensors' names, so that an option for one tensor changes no other (llama-quantize counts the tensors
/// that its rules see, and options shift that count).
/// </summary>
public sealed class TypeChooser(Recipe recipe, RecipeOptions options, ModelTraits model)
{
    private readonly RecipeBook _book = RecipeBook.BuiltIn;

    /// <summary>The type wanted for a tensor and the one it gets.</summary>
    /// <param name="source">What it keeps when it is not to be quantized.</param>
    /// <exception cref="QuantException">A usage error: rows that neither the type nor a fallback can hold.</exception>
    public (ElementType Requested, ElementType Actual) Choose(string ggufName, Shape shape, ElementType source, ICollection<QuantEvent> events)
    {
        if (!TensorCategory.IsQuantizable(ggufName, shape)) return (source, source);
        if (options.LeaveOutputTensor && ggufName == TensorCategory.OutputName) return (source, source);
        if (options.EmbeddingType is not null && ggufName == TensorCategory.EmbeddingName) return Exactly(ggufName, shape, options.EmbeddingType, "--embedding-type");
        if (options.OutputType is not null && model.CategoryOf(ggufName) == TensorCategory.Output) return Exactly(ggufName, shape, options.OutputType, "--output-type");

        string lowered = ggufName.ToLowerInvariant();
        if (options.TensorTypes.FirstOrDefault(rule => rule.Pattern.IsMatch(lowered)) is { } match) return (match.Type, Fit(ggufName, shape, match.Type, null, events));
        ElementType requested = recipe.Type ?? source;
        ElementType? fallback = null;
        foreach (RecipeRule rule in options.Pure ? [] : recipe.Rules)
        {
            if (rule.Matches(ggufName, shape, requested, model)) (requested, fallback) = (rule.Type, rule.Fallback);
        }

        return (requested, Fit(ggufName, shape, requested, fallback, events));
    }

    /// <summary>A type that an option names is taken or refused, never replaced.</summary>
    private (ElementType Requested, ElementType Actual) Exactly(string name, Shape shape, ElementType type, string option)
    {
        if (Holds(type, shape)) return (type, type);
        ElementType? instead = _book.Fallbacks.GetValueOrDefault(type);
        string suitable = instead is not null && Holds(instead, shape) ? instead.Name : PlainTypes.F16.Name;
        throw Unfit(name, shape, type, $"Pass {option} {suitable}, which suits these rows.");
    }

    private ElementType Fit(string name, Shape shape, ElementType requested, ElementType? ruleFallback, ICollection<QuantEvent> events)
    {
        if (Holds(requested, shape)) return requested;
        ElementType actual = ruleFallback ?? _book.Fallbacks.GetValueOrDefault(requested)
            ?? throw Unfit(name, shape, requested, $"Choose another scheme, or a type for this tensor: --tensor-type '^{name.Replace(".", "\\.", StringComparison.Ordinal)}=F16'.");
        if (!Holds(actual, shape)) actual = PlainTypes.F16;
        events.Add(Substitution(name, shape, requested, actual));
        return actual;
    }

    /// <summary>The event of a tensor whose rows are not whole blocks of the wanted type.</summary>
    public static QuantEvent Substitution(string name, Shape shape, ElementType requested, ElementType actual) => new(
        "type-fallback",
        $"{name}: rows of {shape.RowLength} values are not a multiple of {requested.Name}'s blocks of {requested.ValuesPerBlock}; written as {actual.Name}",
        name,
        IsSubstitution: true);

    private static bool Holds(ElementType type, Shape shape) => shape.RowLength % type.ValuesPerBlock == 0;

    private static QuantException Unfit(string name, Shape shape, ElementType type, string remedy) => new(ErrorKind.Usage, $"a row is not whole blocks of {type.Name}")
    {
        Tensor = name,
        Found = $"{shape.RowLength} values",
        Expected = $"a multiple of {type.ValuesPerBlock}",
        Remedy = remedy,
    };
}
