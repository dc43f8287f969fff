using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>The catalogue of rules and the table of files agree, and each file meets the fate that the table says.</summary>
public class RuleTests
{
    public static TheoryData<string> RefusedCases => Names(Outcome.Refused);

    public static TheoryData<string> NotedCases => Names(Outcome.Noted);

    public static TheoryData<string> AcceptedCases => Names(Outcome.Accepted);

    [Fact]
    public void Every_rule_has_a_file_that_breaks_it_and_one_that_just_satisfies_it()
    {
        foreach (Rule rule in GgufRules.All)
        {
            Assert.Contains(RuleCases.All, c => c.Rule == rule.Id && c.Outcome != Outcome.Accepted);
            Assert.Contains(RuleCases.All, c => c.Rule == rule.Id && c.Outcome == Outcome.Accepted);
        }

        Assert.Empty(RuleCases.All.Select(c => c.Rule).Except(GgufRules.All.Select(rule => rule.Id)));
        Assert.Equal(GgufRules.All.Count, GgufRules.All.Select(rule => rule.Id).Distinct().Count());
    }

    [Theory]
    [MemberData(nameof(RefusedCases))]
    public void A_file_that_breaks_a_rule_is_refused_by_exactly_that_rule(string name)
    {
        RuleCase ruleCase = Find(name);
        MemoryFolder files = ruleCase.Files();
        QuantException error = Assert.Throws<QuantException>(() => GgufFile.Open(files, ruleCase.Path, new ReadOptions()));
        Assert.Equal(ruleCase.Rule, error.Rule?.Id);
        Assert.NotNull(error.Path);
        Assert.Contains($"[{ruleCase.Rule}]", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, files.OpenCount);
    }

    [Theory]
    [MemberData(nameof(NotedCases))]
    public void A_tolerated_file_is_read_with_an_event_that_names_the_rule(string name)
    {
        (RuleCase ruleCase, EventLog events) = Accept(name);
        Assert.Single(events.Events, e => e.Message.EndsWith($"[{ruleCase.Rule}]", StringComparison.Ordinal));
    }

    [Theory]
    [MemberData(nameof(AcceptedCases))]
    public void A_file_that_just_satisfies_a_rule_is_read_without_an_event(string name)
    {
        (RuleCase ruleCase, EventLog events) = Accept(name);
        Assert.DoesNotContain(events.Events, e => e.Message.Contains($"[{ruleCase.Rule}]", StringComparison.Ordinal));
    }

    private static (RuleCase Case, EventLog Events) Accept(string name)
    {
        RuleCase ruleCase = Find(name);
        MemoryFolder files = ruleCase.Files();
        EventLog events = new();
        using (GgufFile file = GgufFile.Open(files, ruleCase.Path, new ReadOptions { Events = events }))
        {
            foreach (Core.Tensors.TensorEntry tensor in file.Tensors) file.ReadRaw(tensor, 0, new byte[tensor.ByteLength]);
        }

        Assert.Equal(0, files.OpenCount);
        return (ruleCase, events);
    }

    private static RuleCase Find(string name) => Assert.Single(RuleCases.All, c => c.ToString() == name);

    private static TheoryData<string> Names(Outcome outcome) => new(RuleCases.All.Where(c => c.Outcome == outcome).Select(c => c.ToString()));
}
