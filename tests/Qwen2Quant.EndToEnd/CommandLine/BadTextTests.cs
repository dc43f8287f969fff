using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Texts and weights of which no figure can be made: a refusal that says why, and never a figure that is no number.</summary>
public sealed class BadTextTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("", "empty")]
    [InlineData("\n", "empty")]
    [InlineData("a", "found 1 tokens, expected at least 1024")]
    [InlineData("Some words, but fewer than a window takes.", "expected at least 1024")]
    public void TextsWithoutAFigureAreRefused(string text, string reason)
    {
        string path = _folder.Write("text.txt", text);
        foreach (string[] measure in Measures(Models.Tiny, "--data", path)) Refuses("NU-96", reason, measure);
    }

    [Theory]
    [InlineData("--context", "2", "--protocol", "full", "found 1 tokens, expected at least 2")]
    [InlineData("--context", "1", "--protocol", "full", "--context is out of range")]
    [InlineData("--context", "2", "--protocol", "llama", "--context is out of range")]
    public void OneTokenIsTooFewAtAnyContext(string option, string value, string second, string secondValue, string reason)
    {
        string path = _folder.Write("text.txt", "a");
        foreach (string[] measure in Measures(Models.Tiny, "--data", path, option, value, second, secondValue))
        {
            CliResult result = new CliCommand(measure).Run();
            Assert.Contains(reason, result.Error, StringComparison.Ordinal);
            Assert.Equal((value == "2" && secondValue == "full" ? 3 : 2, ""), (result.ExitCode, result.Output));
        }
    }

    [Fact]
    public void OneScoredPositionIsRefusedAndTwoHaveFiguresThatAreNumbers()
    {
        string path = _folder.Write("text.txt", Texts.HeldOut);
        foreach (string[] measure in Measures(Models.Tiny, "--data", path, "--context", "3", "--chunks", "1")) Refuses("NU-96", "only one token", measure);
        foreach (string[] measure in Measures(Models.Tiny, "--data", path, "--context", "3", "--chunks", "2", "--json"))
        {
            CliResult result = CliCommand.Succeed(measure);
            Assert.Equal(2, result.Json().GetProperty("tokens").GetInt32());
            Assert.DoesNotContain("NaN", result.Output, StringComparison.Ordinal);
            Assert.DoesNotContain("Infinity", result.Output, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void TextsThatAreNotUtf8AreRefusedWithThePlace()
    {
        string path = _folder.Write("text.txt", [.. "good "u8, 0xff, .. " bad"u8]);
        foreach (string[] measure in Measures(Models.Tiny, "--data", path)) Refuses("NU-96", "at byte 5", measure);
    }

    /// <summary>A NaN among the weights, and weights so large that a product of activations overflows.</summary>
    [Theory]
    [InlineData(float.NaN)]
    [InlineData(3e38f)]
    public void ActivationsThatAreNotFiniteNameModelAndLayer(float value)
    {
        string broken = TestCheckpoint.Write(_folder.File("broken"), TestCheckpoint.Small, edit: (name, values) =>
        {
            if (name is "model.layers.1.mlp.up_proj.weight") values[TestCheckpoint.Small.HiddenSize] = value;
            if (name is "model.layers.1.mlp.down_proj.weight") values[1] = value;
        });
        string whole = TestCheckpoint.Write(_folder.File("whole"), TestCheckpoint.Small);
        string[] text = ["--data", "builtin:text", "--context", "64", "--chunks", "2"];
        string[][] runs =
        [
            ["perplexity", broken, .. text], ["perplexity", broken, .. text, "--save-logits", _folder.File("base.kld")], ["compare", broken, whole, .. text], ["compare", whole, broken, .. text],
            ["compare", whole, broken, "--generate", "4", "--prompts", _folder.Write("prompts.txt", "And it")],
        ];
        foreach (string[] run in runs)
        {
            CliResult result = Refuses("NU-95", "model.layers.1", run);
            Assert.Contains(broken, result.Error, StringComparison.Ordinal);
        }

        Assert.False(File.Exists(_folder.File("base.kld")));
    }

    /// <summary>A tokenizer with more tokens than the embedding has rows.</summary>
    [Fact]
    public void TokensBeyondTheVocabularyAreRefused()
    {
        string narrow = TestCheckpoint.Write(_folder.File("narrow"), TestCheckpoint.Small with { VocabSize = 1024, BosTokenId = 1, EosTokenIds = [1], PadTokenId = 1 });
        CliResult result = new CliCommand("perplexity", narrow, "--data", "builtin:text", "--context", "64", "--chunks", "2").Run().Expect(3);
        Assert.Equal("", result.Output);
        Assert.Matches("vocabulary|embedding|rows", result.Error);
    }

    private static string[][] Measures(string model, params string[] options) => [["perplexity", model, .. options], ["compare", model, model, .. options]];

    private static CliResult Refuses(string rule, string reason, string[] arguments)
    {
        CliResult result = new CliCommand(arguments).Run().Expect(3);
        Assert.Contains($"[{rule}]", result.Error, StringComparison.Ordinal);
        Assert.Contains(reason, result.Error, StringComparison.Ordinal);
        Assert.Equal("", result.Output);
        return result;
    }
}
