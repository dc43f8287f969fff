using Qwen2Quant.Core.Errors;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

public sealed class GenerationComparisonTests
{
    [Theory]
    [InlineData(new[] { 1, 2, 3 }, new[] { 1, 2, 3 }, 3, true)]
    [InlineData(new[] { 1, 2, 3 }, new[] { 1, 2, 4 }, 2, false)]
    [InlineData(new[] { 1, 2, 3 }, new[] { 1, 2 }, 2, false)]
    [InlineData(new[] { 1 }, new[] { 2 }, 0, false)]
    [InlineData(new int[0], new[] { 2 }, 0, false)]
    [InlineData(new int[0], new int[0], 0, true)]
    public void TextsPartAtTheFirstTokenThatDiffersOrWhereOneEnds(int[] first, int[] second, int agreed, bool identical)
    {
        PromptComparison compared = PromptComparison.Of("p", first, second, ids => string.Join(' ', ids));
        Assert.Equal(new PromptComparison("p", agreed, identical, first.Length, second.Length, string.Join(' ', first), string.Join(' ', second)), compared);
    }

    [Fact]
    public void SumsAreOverThePrompts()
    {
        PromptComparison[] prompts = [.. new[] { (8, true), (1, false), (3, false), (8, true) }.Select(item => new PromptComparison("p", item.Item1, item.Item2, 8, 8, "", ""))];
        GenerationComparison result = GenerationComparison.From(8, prompts, 2);
        Assert.Equal((8, 5, 5.5, 0.5, 2), (result.Tokens, result.MeanAgreedTokens, result.MedianAgreedTokens, result.IdenticalShare, result.Seconds));
        Assert.Equal(3, GenerationComparison.From(8, prompts[1..], 2).MedianAgreedTokens);
    }

    [Fact]
    public void PromptsAreLines()
    {
        Assert.Equal(["one", " two ", "three"], Prompts.Of(new EvaluationText("p", "one\r\n\n \t\n two \nthree")));
        QuantException error = Assert.Throws<QuantException>(() => Prompts.Of(new EvaluationText("p", "\n \r\n")));
        Assert.Equal(ValidationRules.UsableText, error.Rule);
    }
}
