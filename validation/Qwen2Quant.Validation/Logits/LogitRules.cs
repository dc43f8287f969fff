using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>What must hold for a file of logits to stand for the base of a comparison.</summary>
public static class LogitRules
{
    public static readonly Rule Whole = new("LG-1", "a logit file has llama-perplexity's magic, sizes in range, tokens of its vocabulary, and the length that they ask for");
    public static readonly Rule Belongs = new("LG-2", "a logit file has the vocabulary, tokens and context of the model and text that it is used with");
    public static readonly Rule Distributions = new("LG-3", "each record of a logit file is a probability distribution");

    public static IReadOnlyList<Rule> All { get; } = [Whole, Belongs, Distributions];
}
