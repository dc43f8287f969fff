using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Tests.Rules;

/// <summary>One input for one rule: it breaks only that rule, or just satisfies it.</summary>
/// <param name="Refusal">The kind of error, or null when the input must be accepted.</param>
/// <param name="Open">Builds the input, opens it with the public reader and returns what is handed out.</param>
public sealed record RuleCase(Rule Rule, string Name, ErrorKind? Refusal, Func<object> Open)
{
    public string Key => $"{Rule.Id} {(Refusal is null ? "accepts" : "refuses")} {Name}";

    /// <summary>Opens the input and demands what the case says.</summary>
    public void Check()
    {
        if (Refusal is null)
        {
            Assert.NotNull(Open());
            return;
        }

        object? handedOut = null;
        QuantException error = Assert.Throws<QuantException>(() => { handedOut = Open(); });
        Assert.Null(handedOut);
        Assert.Same(Rule, error.Rule);
        Assert.Equal(Refusal, error.Kind);
        Assert.Contains($"[{Rule.Id}]", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Demands a refusing and an accepting case of every rule; of a permission, which nothing can break, only the latter.</summary>
    public static void CheckCoverage(IReadOnlyList<RuleCase> cases, IReadOnlyList<Rule> rules, IReadOnlyList<Rule> permissions)
    {
        Assert.Equal(cases.Count, cases.Select(static item => item.Key).Distinct().Count());
        Assert.Equal(rules.Count, rules.Select(static rule => rule.Id).Distinct().Count());
        foreach (Rule rule in rules)
        {
            Assert.True(cases.Any(item => item.Rule == rule && item.Refusal is null), $"{rule.Id} has no accepted input");
            Assert.True(cases.Any(item => item.Rule == rule && item.Refusal is not null) != permissions.Contains(rule), $"{rule.Id} has no refused input");
        }

        Assert.All(cases, item => Assert.Contains(item.Rule, rules));
    }
}
