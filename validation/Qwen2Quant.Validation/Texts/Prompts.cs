using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>Texts to continue: the lines of a text.</summary>
public static class Prompts
{
    /// <summary>One prompt a line, without its line end; lines of nothing but white space are none.</summary>
    /// <exception cref="QuantException">NU-96: there is no prompt.</exception>
    public static IReadOnlyList<string> Of(EvaluationText text)
    {
        string[] prompts = [.. text.Text.Split('\n').Select(line => line.TrimEnd('\r')).Where(line => !string.IsNullOrWhiteSpace(line))];
        if (prompts.Length > 0) return prompts;
        throw new QuantException(ErrorKind.InvalidInput, "the text has no prompt") { Rule = ValidationRules.UsableText, Path = text.Name, Expected = "one prompt a line" };
    }
}
