using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Pre-tokenizers by llama.cpp's name (<c>tokenizer.ggml.pre</c>); both split by the same expression.</summary>
public static class PreTokenizers
{
    public const string Qwen2 = "qwen2";

    /// <summary>The distilled models, which differ in their added tokens only.</summary>
    public const string DeepSeekR1Qwen = "deepseek-r1-qwen";

    /// <summary>Qwen2's split expression, as in its tokenizer.json.</summary>
    public const string Qwen2Expression =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public static IReadOnlyList<string> All { get; } = [Qwen2, DeepSeekR1Qwen];

    /// <summary>Refuses a <c>tokenizer.ggml.pre</c> that is missing (null) or of another family.</summary>
    /// <exception cref="QuantException">HF-75.</exception>
    public static string Require(string file, string? name) =>
        name is not null && All.Contains(name, StringComparer.Ordinal)
            ? name
            : throw TokenizerRules.Unsupported(file, "pre-tokenizer", name ?? "none", string.Join(" or ", All));
}
