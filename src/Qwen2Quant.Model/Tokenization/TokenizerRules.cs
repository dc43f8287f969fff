using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Rules of tokenizer files, and the errors that name them.</summary>
public static class TokenizerRules
{
    public static readonly Rule Tokenizer = new("HF-75",
        "The tokenizer is present, of Qwen2's kind, and has every id from 0 to the last exactly once.");

    public static IReadOnlyList<Rule> All { get; } = [Tokenizer];

    internal static QuantException Invalid(string file, string summary, string? found = null, string? expected = null, string? remedy = null) =>
        new(ErrorKind.InvalidInput, summary)
        {
            Rule = Tokenizer,
            Path = file,
            Found = found,
            Expected = expected,
            Remedy = remedy,
        };

    internal static QuantException Unsupported(string file, string what, string found, string expected) =>
        new(ErrorKind.Unsupported, $"the {what} is not the one of Qwen2")
        {
            Rule = Tokenizer,
            Path = file,
            Found = found,
            Expected = expected,
            Remedy = "Only tokenizers of the Qwen2 family are read; another kind would give wrong ids without notice.",
        };
}
