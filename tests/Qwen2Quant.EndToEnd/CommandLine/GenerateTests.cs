using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Model;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Texts and conversations as a user has them.</summary>
public sealed partial class GenerateTests : IDisposable
{
    private const int Interrupt = 2;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>A line for each answer, and of the second prompt only what the cache lacks is run.</summary>
    [Fact]
    public void AConversationGoesOnInOneCache()
    {
        JsonElement talk = Chat("Hello there\nWho art thou?\n\nAnd then?", "--max-tokens", "8", "--json").Json();
        JsonElement[] answers = [.. talk.GetProperty("answers").EnumerateArray()];
        Assert.Equal(["Hello there", "Who art thou?", "And then?"], answers.Select(answer => answer.GetProperty("prompt").GetString()));
        for (int i = 1; i < answers.Length; i++)
        {
            // The last token of an answer is run with what follows it.
            int before = Number(answers[i - 1], "prompt_tokens") + answers[i - 1].GetProperty("tokens").GetArrayLength();
            Assert.Equal(Number(answers[i], "prompt_tokens") - before + 1, Number(answers[i], "prompt_tokens_run"));
        }

        string[] lines = Chat("Hello there\nWho art thou?\n\nAnd then?", "--max-tokens", "8").Output.TrimEnd().Split('\n');
        Assert.Equal(answers.Select(answer => answer.GetProperty("text").GetString()), lines);
    }

    [Fact]
    public void ResetBeginsAnewAndExitEnds()
    {
        JsonElement[] answers = Answers(Chat("Hello\n/reset\nHello\nWho\\\nart thou?\n/exit\nnot read", "--max-tokens", "6", "--json"));
        Assert.Equal(["Hello", "Hello", "Who\nart thou?"], answers.Select(answer => answer.GetProperty("prompt").GetString()));
        Assert.Equal(Text(answers[0]), Text(answers[1]));
        Assert.Equal(Number(answers[0], "prompt_tokens"), Number(answers[1], "prompt_tokens"));
        Assert.Equal("", Chat("", "--max-tokens", "6").Output);
    }

    /// <summary>One message by <c>--prompt</c> is the first of a conversation; another system message gives another answer.</summary>
    [Fact]
    public void OneMessageIsTheFirstOfAConversation()
    {
        string[] chat = ["generate", Models.Tiny, "--chat", "--max-tokens", "8"];
        string first = Text(Answers(Chat("Who art thou?", "--max-tokens", "8", "--json"))[0]);
        Assert.Equal(first + "\n", CliCommand.Succeed([.. chat, "--prompt", "Who art thou?"]).Output);
        Assert.Equal(first + "\n", new CliCommand([.. chat, "--prompt", "-"]) { Input = "Who art thou?" }.Run().Expect(0).Output);
        int plain = Number(CliCommand.Succeed([.. chat, "--prompt", "Who?", "--json"]).Json(), "prompt_tokens");
        int withSystem = Number(CliCommand.Succeed([.. chat, "--prompt", "Who?", "--system", "Speak as a prophet speaks to a king.", "--json"]).Json(), "prompt_tokens");
        Assert.NotEqual(plain, withSystem);
    }

    [Fact]
    public void AFullContextLeavesTheOldestMessagesOut()
    {
        CliResult result = Chat("Hello there\nWho art thou?\nAnd then?\nAnd after that?", "--max-tokens", "8", "--context", "80", "--json");
        Assert.Contains(result.Json().GetProperty("events").EnumerateArray(), entry => entry.GetProperty("code").ValueEquals("context-full"));
        JsonElement[] answers = Answers(result);
        Assert.Equal(4, answers.Length);
        Assert.All(answers, answer => Assert.InRange(Number(answer, "prompt_tokens"), 1, 72));
        Assert.Contains("--context", new CliCommand("generate", Models.Tiny, "--chat", "--context", "20") { Input = "Hello there" }.Run().Expect(2).Error, StringComparison.Ordinal);
    }

    [Fact]
    public void LimitsEndATextAndAreNamed()
    {
        JsonElement none = Generate("--max-tokens", "0"), full = Generate("--context", "9", "--max-tokens", "50");
        Assert.Equal((0, "max_tokens", ""), (none.GetProperty("tokens").GetArrayLength(), none.GetProperty("stop_reason").GetString(), Text(none)));
        Assert.True(none.GetProperty("prompt_tokens_per_second").GetDouble() > 0);
        Assert.Equal("context", full.GetProperty("stop_reason").GetString());
        Assert.Equal(9, Number(full, "prompt_tokens") + full.GetProperty("tokens").GetArrayLength());
    }

    /// <summary>Both tokens that end Qwen2's texts end one here, whichever the configuration names: weights that choose one of them always.</summary>
    [Theory]
    [InlineData(2021)]
    [InlineData(2023)]
    public void EitherStopTokenEnds(int token)
    {
        string path = Constant(token, TestCheckpoint.Small.MaxPositionEmbeddings);
        JsonElement result = CliCommand.Succeed("generate", path, "--prompt", "And", "--json").Json();
        Assert.Equal(("stop_token", 0), (result.GetProperty("stop_reason").GetString(), result.GetProperty("tokens").GetArrayLength()));
    }

    [Fact]
    public void ControlTokensInAPromptAreTokensOnRequest()
    {
        int spelled = Number(Generate(), "prompt_tokens"), parsed = Number(Generate("--parse-special"), "prompt_tokens");
        Assert.True(parsed < spelled);

        JsonElement Generate(params string[] options) =>
            CliCommand.Succeed(["generate", Models.Tiny, "--prompt", "<|im_start|>user\nHello<|im_end|>", "--max-tokens", "1", "--json", .. options]).Json();
    }

    [Fact]
    public void ASeedRepeatsASample()
    {
        string[] sample = ["--temperature", "1", "--top-p", "0.95", "--top-k", "40", "--max-tokens", "16"];
        string first = Text(Generate([.. sample, "--seed", "7"]));
        Assert.Equal(first, Text(Generate([.. sample, "--seed", "7", "--threads", "1"])));
        Assert.NotEqual(first, Text(Generate([.. sample, "--seed", "8"])));
    }

    [Fact]
    public void ATextBeyondTheTrainedLengthIsAWarningThatNamesYarn()
    {
        string path = TestCheckpoint.Write(_folder.File("short"), TestCheckpoint.Small with { MaxPositionEmbeddings = 16 });
        string prompt = string.Concat(Enumerable.Repeat("And it came to pass. ", 4));
        CliResult result = CliCommand.Succeed("generate", path, "--prompt", prompt, "--max-tokens", "2", "--json");
        Assert.Contains("warning:", result.Error, StringComparison.Ordinal);
        JsonElement warning = Assert.Single(result.Json().GetProperty("events").EnumerateArray());
        Assert.Equal("beyond-trained-length", warning.GetProperty("code").GetString());
        Assert.Contains("yarn", warning.GetProperty("message").GetString(), StringComparison.Ordinal);
        Assert.Empty(CliCommand.Succeed("generate", path, "--prompt", "And", "--max-tokens", "2", "--json").Json().GetProperty("events").EnumerateArray());
    }

    /// <summary>Ctrl-C ends the answer and the conversation goes on; where no answer is being written it ends the run.</summary>
    [UnixFact]
    public void AnInterruptStopsTheAnswer()
    {
        if (Signals.IsIgnoredHere(Interrupt)) return;
        CliCommand command = new("generate", Endless(), "--chat", "--context", "60000", "--quiet");
        using Process process = command.Start();
        Task<string> error = process.StandardError.ReadToEndAsync();
        process.StandardInput.WriteLine("Hello");
        Assert.NotEqual(-1, process.StandardOutput.Read());
        Assert.Equal(0, Kill(process.Id, Interrupt));
        Assert.NotNull(process.StandardOutput.ReadLine());
        process.StandardInput.WriteLine("Hello again");
        Assert.NotEqual(-1, process.StandardOutput.Read());
        Assert.Equal(0, Kill(process.Id, Interrupt));
        Assert.NotNull(process.StandardOutput.ReadLine());
        Assert.Equal(0, Kill(process.Id, Interrupt));
        command.Finish(process, process.StandardOutput.ReadToEndAsync(), error).Expect(128 + Interrupt);
    }

    /// <summary>A single text that is stopped is printed as far as it came.</summary>
    [UnixFact]
    public void AnInterruptedTextIsPrinted()
    {
        if (Signals.IsIgnoredHere(Interrupt)) return;
        CliCommand command = new("generate", Endless(), "--prompt", "Hello", "--max-tokens", "60000", "--quiet");
        using Process process = command.Start();
        Task<string> error = process.StandardError.ReadToEndAsync();
        Assert.NotEqual(-1, process.StandardOutput.Read());
        Assert.Equal(0, Kill(process.Id, Interrupt));
        CliResult result = command.Finish(process, process.StandardOutput.ReadToEndAsync(), error).Expect(128 + Interrupt);
        Assert.EndsWith("\n", result.Output, StringComparison.Ordinal);
    }

    /// <summary>Only whole characters are written: the bytes of a character whose tokens are far apart stay together.</summary>
    [Fact]
    public void OutputIsWholeCharacters()
    {
        CliCommand command = new("generate", Models.Tiny, "--prompt", "é", "--temperature", "100", "--seed", "3", "--max-tokens", "200");
        using Process process = command.Start();
        Task<string> error = process.StandardError.ReadToEndAsync();
        process.StandardInput.Close();
        using MemoryStream bytes = new();
        process.StandardOutput.BaseStream.CopyTo(bytes);
        command.Finish(process, Task.FromResult(""), error).Expect(0);
        string text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes.ToArray());
        JsonElement same = CliCommand.Succeed([.. command.Arguments, "--json"]).Json();
        Assert.Equal(Text(same) + "\n", text);
    }

    private static CliResult Chat(string input, params string[] options) => new CliCommand(["generate", Models.Tiny, "--chat", "--quiet", .. options]) { Input = input }.Run().Expect(0);

    private static JsonElement Generate(params string[] options) => CliCommand.Succeed(["generate", Models.Tiny, "--prompt", "And the LORD said", "--json", .. options]).Json();

    private static JsonElement[] Answers(CliResult result) => [.. result.Json().GetProperty("answers").EnumerateArray()];

    private static int Number(JsonElement element, string key) => element.GetProperty(key).GetInt32();

    private static string Text(JsonElement element) => element.GetProperty("text").GetString()!;

    /// <summary>A row that pads the output stands for no text: it is a token all the same, in generate and in the worst positions of compare.</summary>
    [Fact]
    public void PaddingIsATokenWithoutText()
    {
        string path = Constant(2047, TestCheckpoint.Small.MaxPositionEmbeddings);
        JsonElement result = CliCommand.Succeed("generate", path, "--prompt", "And", "--max-tokens", "3", "--json").Json();
        Assert.Equal(("", "[2047,2047,2047]"), (Text(result), string.Concat(result.GetProperty("tokens").GetRawText().Where(c => !char.IsWhiteSpace(c)))));
        CliCommand.Succeed("compare", path, path, "--data", "builtin:text", "--chunks", "1", "--context", "64");
    }

    /// <summary>A model that writes one letter for ever.</summary>
    private string Endless() => Constant('b', 1 << 20);

    /// <summary>A model that always chooses one token: its state is constant, and one row of the output meets it.</summary>
    private string Constant(int token, int maxPositionEmbeddings)
    {
        Qwen2Config config = TestCheckpoint.Small with { TieWordEmbeddings = false, MaxPositionEmbeddings = maxPositionEmbeddings };
        return TestCheckpoint.Write(_folder.File($"constant-{token}"), config, edit: (name, values) =>
        {
            if (name.Contains("_proj", StringComparison.Ordinal)) Array.Clear(values);
            if (name is "model.embed_tokens.weight" or "model.norm.weight") Array.Fill(values, 1);
            if (name == "lm_head.weight") values.AsSpan(token * config.HiddenSize, config.HiddenSize).Fill(1);
        });
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int processId, int signal);
}
