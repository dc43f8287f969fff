using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary><c>--tensor-type PATTERN=TYPE</c>: a regular expression searched in the lower-cased tensor name; the first that matches wins.</summary>
public sealed record TensorTypeOverride(Regex Pattern, ElementType Type)
{
    /// <summary>Longest that one match may take; patterns may come from others.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);

    /// <exception cref="QuantException">A usage error.</exception>
    public static TensorTypeOverride Parse(string text)
    {
        (Regex pattern, string type) = Split(text);
        return new TensorTypeOverride(pattern, RecipeOptions.FindType(type, "--tensor-type"));
    }

    /// <exception cref="QuantException">A usage error.</exception>
    internal static (Regex Pattern, string Type) Split(string text)
    {
        int equals = text.LastIndexOf('=');
        if (equals <= 0) throw new QuantException(ErrorKind.Usage, "--tensor-type is PATTERN=TYPE") { Found = text, Expected = "for example attn_v=Q8_0" };
        try
        {
            return (new Regex(text[..equals].ToLowerInvariant(), RegexOptions.NonBacktracking | RegexOptions.CultureInvariant, Patience), text[(equals + 1)..]);
        }
        catch (Exception error) when (error is ArgumentException or NotSupportedException)
        {
            throw new QuantException(ErrorKind.Usage, $"--tensor-type has a pattern that is no regular expression: {error.Message}", error) { Found = text };
        }
    }
}

/// <summary>What a user may change of a recipe's types.</summary>
public sealed record RecipeOptions
{
    /// <summary>The recipe's plain type everywhere, no mixture.</summary>
    public bool Pure { get; init; }

    /// <summary>Type of the output matrix, which in a tied model is the token embedding; must suit its rows.</summary>
    public ElementType? OutputType { get; init; }

    /// <summary>Type of the token embedding, before <see cref="OutputType"/>; must suit its rows.</summary>
    public ElementType? EmbeddingType { get; init; }

    /// <summary>Leaves <c>output.weight</c> as it is in the source.</summary>
    public bool LeaveOutputTensor { get; init; }

    public IReadOnlyList<TensorTypeOverride> TensorTypes { get; init; } = [];

    /// <summary>True when any of these options asks for something.</summary>
    public bool ChangesTypes => Pure || LeaveOutputTensor || OutputType is not null || EmbeddingType is not null || TensorTypes.Count > 0;

    /// <summary>A ggml type by its name in any case, whether it can be written or not: that matters when a plan is run.</summary>
    /// <exception cref="QuantException">A usage error: ggml has no type of that name.</exception>
    public static ElementType FindType(string name, string option) => GgmlTypes.Find(name)?.Element ?? throw new QuantException(ErrorKind.Usage, $"{option}: there is no such type")
    {
        Found = name,
        Expected = string.Join(", ", GgmlTypes.All.Select(known => known.Name)),
    };
}
