using Qwen2Quant.Core.Errors;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

public class WindowPlanTests
{
    [Fact]
    public void LlamaScoresTheSecondHalfOfEachWindow()
    {
        WindowPlan plan = Plan(512 * 3 + 200, new WindowOptions());
        Assert.Equal(3, plan.WindowCount);
        Assert.Equal(256, plan.FirstScored);
        Assert.Equal(255, plan.ScoredPerWindow);
        Assert.Equal(765, plan.ScoredCount);
        Assert.Equal(1024, plan.Tokens(2)[0]);
        Assert.Equal(1535, plan.Tokens(2)[511]);
    }

    [Theory]
    [InlineData(3, 1, 1)]
    [InlineData(4, 2, 1)]
    [InlineData(5, 2, 2)]
    [InlineData(256, 128, 127)]
    public void LlamaRoundsHalfTheContextDown(int context, int first, int scored)
    {
        WindowPlan plan = Plan(context * 2, new WindowOptions { Context = context });
        Assert.Equal(first, plan.FirstScored);
        Assert.Equal(scored, plan.ScoredPerWindow);
    }

    [Fact]
    public void FullScoresEveryTokenButTheFirst()
    {
        WindowPlan plan = Plan(8 * 256, new WindowOptions { Context = 256, Protocol = ScoringProtocol.Full });
        Assert.Equal(0, plan.FirstScored);
        Assert.Equal(8 * 255, plan.ScoredCount);
    }

    [Theory]
    [InlineData(1023, ScoringProtocol.Llama, false)]
    [InlineData(1024, ScoringProtocol.Llama, true)]
    [InlineData(511, ScoringProtocol.Full, false)]
    [InlineData(512, ScoringProtocol.Full, true)]
    [InlineData(1, ScoringProtocol.Full, false)]
    [InlineData(0, ScoringProtocol.Llama, false)]
    public void TextsThatAreTooShortAreRefused(int tokens, ScoringProtocol protocol, bool accepted)
    {
        WindowOptions options = new() { Protocol = protocol };
        if (accepted)
        {
            Assert.True(Plan(tokens, options).ScoredCount > 1);
            return;
        }

        QuantException error = Assert.Throws<QuantException>(() => Plan(tokens, options));
        Assert.Equal(ErrorKind.InvalidInput, error.Kind);
        Assert.Equal(ValidationRules.UsableText, error.Rule);
        Assert.Contains($"{tokens} tokens", error.Message);
        Assert.Contains("short.txt", error.Message);
    }

    [Fact]
    public void OneScoredTokenIsRefused()
    {
        QuantException error = Assert.Throws<QuantException>(() => Plan(2, new WindowOptions { Context = 2, Protocol = ScoringProtocol.Full }));
        Assert.Equal(ValidationRules.UsableText, error.Rule);
        Assert.Throws<QuantException>(() => Plan(100, new WindowOptions { Context = 4, Chunks = 1 }));
        Assert.Equal(2, Plan(100, new WindowOptions { Context = 4, Chunks = 2 }).ScoredCount);
    }

    [Fact]
    public void OptionsOutOfRangeAreUsageErrors()
    {
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Plan(100, new WindowOptions { Context = 2 })).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Plan(100, new WindowOptions { Context = 1, Protocol = ScoringProtocol.Full })).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Plan(100, new WindowOptions { Context = -512 })).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Plan(100, new WindowOptions { Context = 10, Chunks = 0 })).Kind);
    }

    [Fact]
    public void ChunksLimitsTheNumberOfWindows()
    {
        Assert.Equal([0, 1, 2], Numbers(new WindowOptions { Context = 10, Chunks = 3 }));
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], Numbers(new WindowOptions { Context = 10, Chunks = 50 }));
        Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], Numbers(new WindowOptions { Context = 10, Chunks = 50, Sampling = WindowSampling.Spread }));
    }

    [Fact]
    public void SpreadTakesWindowsEvenly()
    {
        Assert.Equal([0, 3, 6], Numbers(new WindowOptions { Context = 10, Chunks = 3, Sampling = WindowSampling.Spread }));
        Assert.Equal([0, 2, 5, 7], Numbers(new WindowOptions { Context = 10, Chunks = 4, Sampling = WindowSampling.Spread }));
        Assert.Equal([0], Numbers(new WindowOptions { Context = 10, Chunks = 1, Sampling = WindowSampling.Spread }));
    }

    [Fact]
    public void BeginTokenReplacesWhatIsReadAndNotWhatIsExpected()
    {
        WindowPlan plan = Plan(40, new WindowOptions { Context = 10, BeginToken = 99 });
        int[] input = new int[10];
        plan.CopyInput(2, input);
        Assert.Equal([99, 21, 22, 23, 24, 25, 26, 27, 28, 29], input);
        Assert.Equal(20, plan.Tokens(2)[0]);
    }

    [Fact]
    public void TokensOutsideTheVocabularyAreRefused()
    {
        WindowPlan plan = WindowPlan.Create([0, 1, 2, 3, 4, 5, 6, 40, 8, 9, -1], new WindowOptions { Context = 5 }, "text");
        plan.CheckVocabulary(41);
        QuantException error = Assert.Throws<QuantException>(() => plan.CheckVocabulary(40));
        Assert.Contains("token 40 at window 1, position 2", error.Message);
        WindowPlan negative = WindowPlan.Create([0, 1, 2, 3, -4, 5], new WindowOptions { Context = 3 }, "text");
        Assert.Throws<QuantException>(() => negative.CheckVocabulary(40));
    }

    private static WindowPlan Plan(int tokens, WindowOptions options) =>
        WindowPlan.Create([.. Enumerable.Range(0, tokens)], options, "short.txt");

    private static int[] Numbers(WindowOptions options)
    {
        WindowPlan plan = Plan(105, options);
        return [.. Enumerable.Range(0, plan.WindowCount).Select(plan.WindowNumber)];
    }
}
