using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Tests.Rules;

namespace Qwen2Quant.Tests.Safetensors;

public sealed class RuleTableTests
{
    private static readonly Dictionary<string, RuleCase> ByKey =
        SafetensorsRuleCases.All.Concat(WeightFileRuleCases.All).ToDictionary(static item => item.Key);

    public static TheoryData<string> Keys => [.. ByKey.Keys];

    [Theory]
    [MemberData(nameof(Keys))]
    public void Case(string key) => ByKey[key].Check();

    [Fact]
    public void EveryRuleOfAFileHasItsCases() =>
        RuleCase.CheckCoverage(SafetensorsRuleCases.All, SafetensorsRules.All, SafetensorsRules.Permissions);

    [Fact]
    public void EveryRuleOfAFolderHasItsCases() =>
        RuleCase.CheckCoverage(WeightFileRuleCases.All, WeightFileRules.All, WeightFileRules.Permissions);

    [Fact]
    public void RulesAreNumberedFromOneToThirty() =>
        Assert.Equal(Enumerable.Range(1, 30).Select(static number => $"ST-{Skeleton.Text(number)}"), SafetensorsRules.All.Select(static rule => rule.Id));
}
