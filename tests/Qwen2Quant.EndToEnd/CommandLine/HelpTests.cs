using Qwen2Quant.EndToEnd.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Help, completion and version.</summary>
public sealed class HelpTests
{
    private static readonly string[] Known = ["inspect", "convert", "quantize", "calibrate", "perplexity", "compare", "verify", "merge", "split", "dequantize", "repack", "pad", "generate", "tokenize", "types", "bench", "batch", "completion"];

    [Fact]
    public void HelpOfEveryVerbEndsWithExamplesOfIt()
    {
        string[] verbs = Verbs();
        foreach (string known in Known) Assert.Contains(known, verbs);
        foreach (string verb in verbs)
        {
            CliResult help = CliCommand.Succeed(verb, "--help");
            Assert.Equal("", help.Error);
            string[] lines = help.Output.TrimEnd().Split('\n');
            int examples = Array.IndexOf(lines, "Examples:");
            Assert.InRange(examples, 1, lines.Length - 2);
            Assert.All(lines[(examples + 1)..], line => Assert.StartsWith($"  qwen2quant {verb}", line, StringComparison.Ordinal));
            Assert.Contains("--json", help.Output, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void HelpOfThePartsOfAVerbIsTheirs()
    {
        foreach (string part in (string[])["plan", "work", "status", "merge", "report"])
        {
            CliResult help = CliCommand.Succeed("batch", part, "--help");
            Assert.Contains($"Examples:\n  qwen2quant batch {part} ", help.Output.ReplaceLineEndings("\n"), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void TheExamplesWithTheBuiltInModelRun()
    {
        using Tests.Support.TempFolder folder = new();
        List<string> run = [];
        foreach (string verb in Verbs())
        {
            foreach (string line in CliCommand.Succeed(verb, "--help").Output.Split('\n').Where(line => line.StartsWith($"  qwen2quant {verb} builtin:tiny ", StringComparison.Ordinal)))
            {
                if (line.Contains("--chunks 16", StringComparison.Ordinal) || verb == "compare") continue;
                string[] arguments = Split(line.Trim()["qwen2quant ".Length..].Replace("--chunks 8", "--chunks 1", StringComparison.Ordinal));
                if (verb == "quantize") arguments = [.. arguments, "--chunks", "1"];
                new CliCommand(arguments) { WorkingDirectory = folder.Path }.Run().Expect(0);
                run.Add(verb);
            }
        }

        foreach (string verb in new[] { "quantize", "perplexity", "generate", "tokenize" }) Assert.Contains(verb, run);
    }

    [Fact]
    public void TheVersionIsThatOfTheProject() =>
        Assert.StartsWith(Pipeline.Running.Conversion.Version, CliCommand.Succeed("--version").Output, StringComparison.Ordinal);

    [Theory]
    [InlineData("bash", "complete ")]
    [InlineData("zsh", "#compdef qwen2quant")]
    [InlineData("fish", "complete -c qwen2quant")]
    [InlineData("pwsh", "Register-ArgumentCompleter")]
    public void CompletionScriptsAskTheProgram(string shell, string mark)
    {
        string script = CliCommand.Succeed("completion", shell).Output;
        Assert.Contains(mark, script, StringComparison.Ordinal);
        Assert.Contains("[suggest:", script, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("qwen2quant qua", "quantize")]
    [InlineData("qwen2quant quantize --em", "--embedding-type")]
    [InlineData("qwen2quant convert --t", "--type")]
    [InlineData("qwen2quant convert m --to ", "safetensors")]
    public void SuggestionsCompleteTheLine(string line, string expected) =>
        Assert.Contains(expected, CliCommand.Succeed($"[suggest:{line.Length}]", line).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries));

    [UnixFact]
    public void BashCompletesByTheScript()
    {
        using Tests.Support.TempFolder folder = new();
        string script = folder.Write("complete.bash", CliCommand.Succeed("completion", "bash").Output);
        folder.Write("qwen2quant", $"#!/bin/bash\nexec '{CliCommand.DotnetPath}' '{CliCommand.Assembly}' \"$@\"\n");
        const string ask = "chmod +x $2/qwen2quant; PATH=$2:$PATH; source $1; COMP_WORDS=(qwen2quant perp); COMP_CWORD=1; COMP_LINE='qwen2quant perp'; COMP_POINT=15; _qwen2quant; printf '%s\\n' \"${COMPREPLY[@]}\"";
        CliResult completed = new CliCommand("-c", ask, "bash", script, folder.Path) { Executable = "/bin/bash", WorkingDirectory = folder.Path }.Run().Expect(0);
        Assert.Equal("perplexity", completed.Output.Trim());
    }

    /// <summary>What the help of the program lists.</summary>
    private static string[] Verbs()
    {
        string[] lines = CliCommand.Succeed("--help").Output.Split('\n');
        int commands = Array.IndexOf(lines, "Commands:");
        return [.. lines.Skip(commands + 1).TakeWhile(line => line.StartsWith("  ", StringComparison.Ordinal)).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[0])];
    }

    /// <summary>Words of a line, text in double quotes as one.</summary>
    private static string[] Split(string line) =>
        [.. line.Split('"').SelectMany((part, index) => index % 2 == 1 ? [part] : part.Split(' ', StringSplitOptions.RemoveEmptyEntries))];
}
