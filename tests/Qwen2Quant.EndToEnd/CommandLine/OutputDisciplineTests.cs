using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Results on standard output, the rest on standard error; colours only where they are wanted; pipes that close; other locales.</summary>
public sealed partial class OutputDisciplineTests : IDisposable
{
    private const char Escape = '\u001b';

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void RedirectedOutputHasNoEscapeCodes()
    {
        foreach (string[] arguments in new string[][] { ["perplexity", Models.Tiny, "--data", "builtin:text", "--chunks", "1"], ["types"], ["inspect", Models.Tiny, "--tensors", "--metadata"], ["--help"] })
        {
            CliResult result = new CliCommand(arguments) { Environment = new Dictionary<string, string> { ["TERM"] = "xterm-256color" } }.Run().Expect(0);
            Assert.DoesNotContain(Escape, result.Output + result.Error);
        }
    }

    /// <summary>Without the terminal's own colours the test would prove nothing: the first case expects them.</summary>
    [TerminalTheory]
    [InlineData("xterm-256color", "", "", true, true)]
    [InlineData("xterm-256color", "1", "", false, true)]
    [InlineData("xterm-256color", "", "--no-color", false, true)]
    [InlineData("dumb", "", "", false, false)]
    public void ATerminalHasColoursUnlessTheyAreUnwanted(string terminal, string noColor, string option, bool coloured, bool moved)
    {
        Dictionary<string, string> environment = new() { ["TERM"] = terminal };
        if (noColor.Length > 0) environment["NO_COLOR"] = noColor;
        string command = $"'{CliCommand.DotnetPath}' '{CliCommand.Assembly}' perplexity builtin:tiny --data builtin:text --chunks 1 {option}";
        CliResult result = new CliCommand("-qefc", command, "/dev/null") { Executable = TerminalTheoryAttribute.Script, Environment = environment }.Run().Expect(0);
        Assert.Contains("perplexity 52.36", result.Output, StringComparison.Ordinal);
        Assert.Equal(coloured, Colours().IsMatch(result.Output));
        Assert.Equal(moved, result.Output.Contains(Escape));
    }

    [Fact]
    public void ResultsGoToStandardOutputAndEventsToStandardError()
    {
        string source = TestCheckpoint.Write(_folder.File("narrow"), TestCheckpoint.Small);
        string[] quantize = ["quantize", source, "--to", "gguf:Q6_K", "--out", _folder.File("m.gguf"), "--force"];
        CliResult loud = CliCommand.Succeed(quantize);
        Assert.Contains("bits per weight", loud.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("warning", loud.Output, StringComparison.Ordinal);
        Assert.Contains("warning: ", loud.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("bits per weight", loud.Error, StringComparison.Ordinal);

        CliResult quiet = CliCommand.Succeed([.. quantize, "--quiet"]);
        Assert.Equal("", quiet.Error);
        CliResult verbose = CliCommand.Succeed([.. quantize, "--verbose"]);
        Assert.True(verbose.Error.Length > loud.Error.Length);
        CliResult json = CliCommand.Succeed([.. quantize, "--json"]);
        Assert.Equal(loud.Error, json.Error);
        Assert.Contains(json.Json().GetProperty("events").EnumerateArray(), entry => entry.GetProperty("is_substitution").GetBoolean());
    }

    [Fact]
    public async Task AReaderThatLeavesEndsItQuietly()
    {
        // Far more than a pipe holds, so that the program writes after its reader has gone.
        string text = string.Concat(Enumerable.Repeat("And it came to pass in those days. ", 20_000));
        CliCommand command = new("tokenize", Models.Tiny, "-");
        using Process process = command.Start();
        Task<string> error = process.StandardError.ReadToEndAsync();
        await process.StandardInput.WriteAsync(text);
        process.StandardInput.Close();
        Assert.Matches(@"^\s*\d+  ", await process.StandardOutput.ReadLineAsync());
        process.StandardOutput.Close();
        await process.WaitForExitAsync().WaitAsync(command.Timeout);
        Assert.Equal(("", 0), (await error, process.ExitCode));
    }

    /// <summary>Decimal commas, Turkish letters: figures and keys stay what they are.</summary>
    [Theory]
    [InlineData("de_DE.UTF-8")]
    [InlineData("tr_TR.UTF-8")]
    public void TheLocaleChangesNothing(string locale)
    {
        Dictionary<string, string> environment = new() { ["LC_ALL"] = locale, ["LANG"] = locale, ["LC_NUMERIC"] = locale, ["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "0" };
        foreach (string[] arguments in new string[][]
        {
            ["inspect", Models.Tiny, "--json"],
            ["types"],
            ["tokenize", Models.Tiny, "İstanbul'da 3,14 I i", "--json"],
            ["quantize", Models.Tiny, "--to", "gguf:q5_1", "--out", _folder.File("m.gguf"), "--dry-run"],
        })
        {
            Assert.Equal(CliCommand.Succeed(arguments).Output, new CliCommand(arguments) { Environment = environment }.Run().Expect(0).Output);
        }

        string[] measure = ["perplexity", Models.Tiny, "--data", "builtin:text", "--chunks", "1", "--json"];
        double perplexity = new CliCommand(measure) { Environment = environment }.Run().Expect(0).Json().GetProperty("perplexity").GetDouble();
        Assert.Equal(CliCommand.Succeed(measure).Json().GetProperty("perplexity").GetDouble(), perplexity);
    }

    [Fact]
    public void StandardInputMayHoldTheText()
    {
        string text = Texts.HeldOut[..8000];
        CliResult piped = new CliCommand("perplexity", Models.Tiny, "--data", "-", "--context", "256", "--json") { Input = text }.Run().Expect(0);
        CliResult read = CliCommand.Succeed("perplexity", Models.Tiny, "--data", _folder.Write("text.txt", Encoding.UTF8.GetBytes(text)), "--context", "256", "--json");
        Assert.Equal(read.Json().GetProperty("perplexity").GetDouble(), piped.Json().GetProperty("perplexity").GetDouble());
    }

    /// <summary>Select graphic rendition: the sequences that colour.</summary>
    [GeneratedRegex("\u001b\\[[0-9;]*m")]
    private static partial Regex Colours();
}

/// <summary>A theory that needs <c>script</c> of util-linux, which gives the program a terminal; skipped, visibly, without it.</summary>
public sealed class TerminalTheoryAttribute : TheoryAttribute
{
    public const string Script = "/usr/bin/script";

    public TerminalTheoryAttribute()
    {
        if (!OperatingSystem.IsLinux() || !File.Exists(Script)) Skip = $"needs {Script}";
    }
}
