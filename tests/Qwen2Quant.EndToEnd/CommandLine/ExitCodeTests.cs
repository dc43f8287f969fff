using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Every exit code that a script may act on, and that a refusal says its reason on standard error alone.</summary>
public sealed class ExitCodeTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("quantise", "quantize")]
    [InlineData("", "Required command")]
    [InlineData("types --nonsense", "--nonsense")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0", "--out")]
    [InlineData("quantize builtin:tiny --to gguf:Q9_9 --out x.gguf", "gguf:Q4_0")]
    [InlineData("quantize builtin:tiny --to nonsense --out x.gguf", "gguf:Q4_0")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --fail-above mean_kld=0.1", "--validate")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --validate builtin:text --fail-above nonsense=1", "nonsense")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --tensor-type (=Q8_0", "--tensor-type")]
    [InlineData("quantize builtin:tiny --to gguf --out x.gguf", "gguf:Q4_0")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --effort extreme", "reference")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --override-kv a=1", "--override-kv")]
    [InlineData("quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --output-type Q9_9", "--output-type")]
    [InlineData("quantize builtin:tiny --to gguf:COPY --out x.gguf --pure", "COPY")]
    [InlineData("quantize builtin:tiny --to gguf:IQ2_XXS --out x.gguf", "calibrate")]
    [InlineData("convert builtin:tiny --to gguf --type q4_0 --out x.gguf", "bf16")]
    [InlineData("inspect builtin:nonsense", "builtin:tiny")]
    [InlineData("split builtin:tiny --out x", "--max-shard-size or --max-tensors")]
    [InlineData("split builtin:tiny --max-tensors 3 --max-shard-size 1MB --out x", "--max-shard-size or --max-tensors")]
    [InlineData("split builtin:tiny --max-tensors 0 --out x", "--max-tensors")]
    [InlineData("merge builtin:tiny --out x", "convert")]
    [InlineData("pad builtin:tiny --out x", "nothing to pad")]
    [InlineData("pad builtin:tiny --intermediate-multiple 0 --out x", "--intermediate-multiple")]
    [InlineData("pad builtin:tiny --intermediate-multiple 2000 --out x", "1000 or more")]
    [InlineData("dequantize builtin:tiny --type q8_0 --out x", "bf16")]
    [InlineData("repack builtin:tiny --to awq:w4g64 --out x", "Use quantize")]
    [InlineData("repack builtin:tiny --to gguf:F16 --out x", "dequantize")]
    [InlineData("perplexity builtin:tiny --data builtin:text --chunks 0", "--chunks")]
    [InlineData("perplexity builtin:tiny --data builtin:text --chunks many", "--chunks")]
    [InlineData("perplexity builtin:tiny --data builtin:text --memory lots", "--memory")]
    [InlineData("generate builtin:tiny --prompt a --top-p 2", "--top-p")]
    [InlineData("generate builtin:tiny --prompt a --temperature -1", "--temperature")]
    [InlineData("generate builtin:tiny --prompt a --max-tokens -1", "--max-tokens")]
    [InlineData("generate builtin:tiny --prompt a --context 0", "--context")]
    [InlineData("generate builtin:tiny --prompt and-it-came-to-pass --context 2", "--context")]
    [InlineData("generate builtin:tiny --prompt -", "--prompt is empty")]
    [InlineData("generate builtin:tiny", "--chat")]
    [InlineData("generate builtin:tiny --prompt a --system b", "--chat")]
    [InlineData("types --threads 0", "--threads")]
    [InlineData("types --recipe nonsense", "Q4_0")]
    [InlineData("completion tcsh", "bash")]
    public void WrongCommandLinesGive2(string line, string named) => Refuses(2, named, line.Split(' ', StringSplitOptions.RemoveEmptyEntries));

    [Fact]
    public void AnExistingOutputGives2AndIsKept()
    {
        string output = _folder.Write("taken.gguf", "precious");
        Refuses(2, "--force", "quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", output);
        Assert.Equal("precious", File.ReadAllText(output));
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", output, "--force");
        CliCommand.Succeed("verify", output);
    }

    [Fact]
    public void AnOutputThatIsItsInputGives2AndIsKept()
    {
        string path = _folder.File("m.gguf");
        CliCommand.Succeed("convert", Models.Tiny, "--to", "gguf", "--out", path);
        byte[] before = File.ReadAllBytes(path);
        Refuses(2, "own input", "quantize", path, "--to", "gguf:Q4_0", "--out", path, "--force");
        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Theory]
    [InlineData("inspect missing", "missing")]
    [InlineData("inspect missing.gguf", "missing.gguf")]
    [InlineData("verify no-org/no-model", "hf download")]
    [InlineData("quantize builtin:tiny --to gguf --recipe missing.json --out x.gguf", "missing.json")]
    [InlineData("perplexity builtin:tiny --data missing.txt", "missing.txt")]
    public void MissingInputsGive3(string line, string named)
    {
        CliResult result = new CliCommand(line.Split(' ')) { Environment = new Dictionary<string, string> { ["HF_HUB_CACHE"] = _folder.Path }, WorkingDirectory = _folder.Path }.Run().Expect(3);
        Assert.Contains(named, result.Error, StringComparison.Ordinal);
        Assert.Equal("", result.Output);
    }

    [Fact]
    public void DamagedFilesGive3AndTheRule()
    {
        string path = _folder.File("m.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q8_0", "--out", path);
        byte[] whole = File.ReadAllBytes(path);
        Refuses(3, "[GG-49]", "verify", _folder.Write("short.gguf", whole.AsSpan(0, whole.Length - 40_000)));
        Refuses(3, "[GG-31]", "verify", _folder.Write("magic.gguf", [.. "GGUX"u8, .. whole.AsSpan(4)]));
        Refuses(3, "[GG-", "quantize", _folder.Write("empty.gguf", []), "--to", "gguf:Q4_0", "--out", _folder.File("o.gguf"));

        string folder = TestCheckpoint.Write(_folder.File("nan"), TestCheckpoint.Small, edit: static (name, values) =>
        {
            if (name.EndsWith("layers.1.mlp.up_proj.weight", StringComparison.Ordinal)) values[777] = float.NaN;
        });
        CliResult result = Refuses(3, "[NU-", "quantize", folder, "--to", "gguf:Q8_0", "--out", _folder.File("nan.gguf"));
        Assert.Contains("layers.1.mlp.up_proj.weight", result.Error, StringComparison.Ordinal);
        Assert.Equal([], Directory.GetFileSystemEntries(_folder.Path, "*nan.gguf*"));
    }

    [Fact]
    public void AFailedGateGives4AndKeepsTheFile()
    {
        string path = _folder.File("m.gguf");
        CliResult result = new CliCommand("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", path, "--validate", "builtin:text", "--chunks", "1", "--fail-above", "mean_kld=0.000001", "--json").Run().Expect(4);
        Assert.Contains("mean_kld", result.Error, StringComparison.Ordinal);
        Assert.InRange(result.Json().GetProperty("validation").GetProperty("mean_kld").GetDouble(), 0.000001, 1);
        CliCommand.Succeed("verify", path);
        Refuses(4, "top_token_agreement", "compare", Models.Tiny, path, "--data", "builtin:text", "--chunks", "1", "--fail-below", "top_token_agreement=1", "--quiet");
        CliCommand.Succeed("compare", Models.Tiny, path, "--data", "builtin:text", "--chunks", "1", "--fail-below", "top_token_agreement=0.5", "--fail-above", "mean_kld=1");
    }

    [Fact]
    public void SubstitutionsUnderStrictGive5()
    {
        string source = TestCheckpoint.Write(_folder.File("narrow"), TestCheckpoint.Small), output = _folder.File("narrow.gguf");
        string[] quantize = ["quantize", source, "--to", "gguf:Q4_0", "--out", output];
        Refuses(5, "Q6_K", [.. quantize, "--strict"]);
        Assert.False(File.Exists(output));
        CliResult lenient = CliCommand.Succeed(quantize);
        Assert.Contains("warning", lenient.Error, StringComparison.Ordinal);
        Assert.True(File.Exists(output));
    }

    [Fact]
    public void AMissingOutputFolderGives6() =>
        Refuses(6, "does not exist", "quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", _folder.File("no/such/folder/m.gguf"));

    [Theory]
    [InlineData("perplexity builtin:tiny --data builtin:text --memory 1MB")]
    [InlineData("compare builtin:tiny builtin:tiny --data builtin:text --memory 1MB")]
    [InlineData("calibrate builtin:tiny --data builtin:text --out im.gguf --memory 1MB")]
    public void TooLittleMemoryGives6AndSaysHowMuchWouldDo(string line)
    {
        CliResult result = Refuses(6, "at least", line.Split(' '));
        string enough = System.Text.RegularExpressions.Regex.Match(result.Error, "at least ([0-9]+MB)").Groups[1].Value;
        CliCommand.Succeed([.. line.Replace("1MB", enough, StringComparison.Ordinal).Replace("im.gguf", _folder.File("im.gguf"), StringComparison.Ordinal).Split(' '), "--threads", $"{Environment.ProcessorCount}"]);
    }

    [LinuxFact]
    public void ATemporaryFolderThatIsFullGives6()
    {
        string enough = System.Text.RegularExpressions.Regex.Match(Refuses(6, "at least", "perplexity", Models.Tiny, "--data", "builtin:text", "--memory", "1MB").Error, "at least ([0-9]+MB)").Groups[1].Value;
        CliResult result = new CliCommand("perplexity", Models.Tiny, "--data", "builtin:text", "--memory", enough) { Environment = new Dictionary<string, string> { ["TMPDIR"] = "/proc" } }.Run().Expect(6);
        Assert.Contains("TMPDIR", result.Error, StringComparison.Ordinal);
    }

    /// <summary>A file system without room for a file, as any machine has one.</summary>
    [LinuxFact]
    public void AFullDiskGives6() => Refuses(6, "bytes free", "quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", "/proc/m.gguf");

    /// <summary>Standard output stays empty even with <c>--json</c>: a script never parses an error.</summary>
    private CliResult Refuses(int exitCode, string named, params string[] arguments)
    {
        CliResult result = new CliCommand(arguments) { WorkingDirectory = _folder.Path }.Run().Expect(exitCode);
        Assert.Contains(named, result.Error, StringComparison.Ordinal);
        if (exitCode != 4) Assert.Equal("", result.Output);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
        return result;
    }
}
