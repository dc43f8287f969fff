using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary><c>--tensor-type PATTERN=TYPE</c>: a regular expression searched in the lower-cased tensor name; the first that matches wins.</summary>
public sealed record TensorTypeOverride(Regex Pattern, ElementType Type)
{
    /// <summary>Longest that one match may take; patterns may come from others.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);

    public static TensorTypeOverride Parse(string text)
    {
        int equals = text.LastIndexOf('=');
        if (equals <= 0) throw new QuantException(ErrorKind.Usage, "--tensor-type is PATTERN=TYPE") { Found = text, Expected = "for example attn_v=Q8_0" };
        try
        {
            Regex pattern = new(text[..equals].ToLowerInvariant(), RegexOptions.NonBacktracking | RegexOptions.CultureInvariant, Patience);
            return new TensorTypeOverride(pattern, TypeChooser.RequireWritable(text[(equals + 1)..]));
        }
        catch (Exception error) when (error is ArgumentException or NotSupportedException)
        {
            throw new QuantException(ErrorKind.Usage, $"--tensor-type has a pattern that is no regular expression: {error.Message}", error) { Found = text };
        }
    }
}

/// <summary>What a user may change of a recipe.</summary>
public sealed record RecipeOptions
{
    /// <summary>The recipe's plain type everywhere, no mixture.</summary>
    public bool Pure { get; init; }

    public ElementType? OutputType { get; init; }
    public ElementType? EmbeddingType { get; init; }

    /// <summary>Leaves <c>output.weight</c> as it is in the source.</summary>
    public bool LeaveOutputTensor { get; init; }

    public IReadOnlyList<TensorTypeOverride> TensorTypes { get; init; } = [];
}

/// <summary>Applies a recipe to tensors: type wanted, type that the shape allows, and an event where these differ.</summary>
public sealed class TypeChooser(RecipeBook book, Recipe recipe, RecipeOptions options, bool isTied, int expertCount)
{
    /// <summary>A type by its ggml name.</summary>
    /// <exception cref="QuantException">Unknown, or a type that this program reads only.</exception>
    public static ElementType RequireWritable(string name)
    {
        GgmlType? type = GgmlTypes.Find(name);
        if (type is { Element.CanEncode: true }) return type.Element;
        throw new QuantException(ErrorKind.Usage, type is null ? "there is no such type" : "this type is read, not written")
        {
            Found = name,
            Expected = string.Join(", ", GgmlTypes.All.Where(known => known.Element.CanEncode).Select(known => known.Name)),
        };
    }

    /// <summary>
    /// The type wanted for a tensor and the one it gets. <paramref name="unquantized"/> is what it keeps when no rule applies.
    /// </summary>
    public (ElementType Requested, ElementType Actual) Choose(string ggufName, Shape shape, ElementType unquantized, ICollection<QuantEvent> events)
    {
        if (!TensorCategory.IsQuantizable(ggufName, SignificantRank(shape))) return (unquantized, unquantized);
        if (options.LeaveOutputTensor && ggufName == "output.weight") return (unquantized, unquantized);
        ElementType requested = Request(ggufName);
        return (requested, Fit(ggufName, shape, requested, events));
    }

    /// <summary>The wanted type, or what its fallback is for a row that is not a multiple of its block; F16 as the last resort.</summary>
    public ElementType Fit(string name, Shape shape, ElementType requested, ICollection<QuantEvent> events)
    {
        if (shape.RowLength % requested.ValuesPerBlock == 0) return requested;
        ElementType actual = requested;
        if (book.Fallbacks.TryGetValue(requested.Name, out string? fallback)) actual = RequireWritable(fallback);
        if (shape.RowLength % actual.ValuesPerBlock != 0) actual = PlainTypes.F16;
        events.Add(new QuantEvent(
            "type-fallback",
            $"{name}: rows of {shape.RowLength} values are not a multiple of {requested.Name}'s blocks of {requested.ValuesPerBlock}; written as {actual.Name}",
            name,
            IsSubstitution: true));
        return actual;
    }

    private ElementType Request(string ggufName)
    {
        string? category = TensorCategory.Of(ggufName, isTied);
        if (options.OutputType is not null && category == "output") return options.OutputType;
        if (options.EmbeddingType is not null && ggufName == "token_embd.weight") return options.EmbeddingType;
        string lowered = ggufName.ToLowerInvariant();
        if (options.TensorTypes.FirstOrDefault(rule => rule.Pattern.IsMatch(lowered)) is { } match) return match.Type;
        string type = recipe.Type;
        if (!options.Pure)
        {
            foreach (RecipeRule rule in recipe.Rules ?? [])
            {
                if (rule.Tensors == category && (rule.ExpertCount is null || rule.ExpertCount == expertCount)) type = rule.Type;
            }
        }

        return RequireWritable(type);
    }

    /// <summary>Dimensions without ones on the outside: a stored [1, n] is a vector.</summary>
    private static int SignificantRank(Shape shape)
    {
        int leadingOnes = 0;
        while (leadingOnes < shape.Rank - 1 && shape[leadingOnes] == 1) leadingOnes++;
        return shape.Rank - leadingOnes;
    }
}
