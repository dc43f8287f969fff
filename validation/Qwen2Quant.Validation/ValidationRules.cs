using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>What must hold for a measurement to mean anything.</summary>
public static class ValidationRules
{
    public static readonly Rule UsableText = new("NU-96", "an evaluation text is valid UTF-8, not empty, and long enough to score");

    public static IReadOnlyList<Rule> All { get; } = [UsableText];
}
