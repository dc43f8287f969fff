using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Gguf;

internal static class GgufRefusal
{
    /// <summary>The error of a broken rule; <paramref name="subject"/> is the key or tensor concerned.</summary>
    public static QuantException Of(
        Rule rule,
        string path,
        string summary,
        string? subject = null,
        long? at = null,
        string? found = null,
        string? expected = null,
        string? remedy = null,
        ErrorKind kind = ErrorKind.InvalidInput) =>
        new(kind, summary)
        {
            Rule = rule,
            Path = path,
            Tensor = subject,
            ByteOffset = at,
            Found = found,
            Expected = expected,
            Remedy = remedy,
        };

    /// <summary>The error of a limit of ours that a file, legal by its format, exceeds.</summary>
    public static QuantException Limit(Rule rule, string path, string summary, long found, long limit, string? subject = null) =>
        Of(rule, path, summary, subject, found: $"{found}", expected: $"at most {limit}", kind: ErrorKind.Resource);
}
