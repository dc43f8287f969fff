namespace Qwen2Quant.Validation;

/// <summary>What <c>compare --generate</c> found: greedy continuations of the same prompts by both models.</summary>
/// <param name="Tokens">Tokens asked for after each prompt; a token that ends the text ends it earlier.</param>
/// <param name="MeanAgreedTokens">Tokens before the first that differs, in the mean over the prompts.</param>
/// <param name="MedianAgreedTokens">The same, in the median.</param>
/// <param name="IdenticalShare">Share of prompts, 0 to 1, whose continuations are the same to their end.</param>
/// <param name="Seconds">Wall-clock time of the run.</param>
public sealed record GenerationComparison(
    int Tokens,
    double MeanAgreedTokens,
    double MedianAgreedTokens,
    double IdenticalShare,
    double Seconds,
    IReadOnlyList<PromptComparison> Prompts)
{
    /// <param name="prompts">At least one.</param>
    public static GenerationComparison From(int tokens, IReadOnlyList<PromptComparison> prompts, double seconds)
    {
        double[] agreed = [.. prompts.Select(prompt => (double)prompt.AgreedTokens).Order()];
        return new GenerationComparison(
            tokens, agreed.Average(), Percentiles.Of(agreed, 0.5), (double)prompts.Count(prompt => prompt.Identical) / prompts.Count, seconds, prompts);
    }
}

/// <summary>Two continuations of one prompt.</summary>
/// <param name="AgreedTokens">Tokens before the first that differs; where one text ends, the other goes on with a token that differs.</param>
/// <param name="Identical">Whether both are the same to their end.</param>
/// <param name="BaseTokens">Tokens of the base's continuation, the one that ends it not counted.</param>
/// <param name="CandidateTokens">The same of the candidate.</param>
/// <param name="BaseText">The base's continuation, without the prompt.</param>
/// <param name="CandidateText">The candidate's.</param>
public sealed record PromptComparison(string Prompt, int AgreedTokens, bool Identical, int BaseTokens, int CandidateTokens, string BaseText, string CandidateText)
{
    /// <param name="decode">Turns token ids into text.</param>
    public static PromptComparison Of(string prompt, int[] baseTokens, int[] candidateTokens, Func<int[], string> decode)
    {
        int agreed = baseTokens.AsSpan().CommonPrefixLength(candidateTokens);
        bool identical = agreed == baseTokens.Length && agreed == candidateTokens.Length;
        return new PromptComparison(prompt, agreed, identical, baseTokens.Length, candidateTokens.Length, decode(baseTokens), decode(candidateTokens));
    }
}

/// <summary>What <c>compare</c> prints as JSON when it only generates: the same key as beside the other figures.</summary>
public sealed record GenerationDocument(GenerationComparison Generation);
