using System.Globalization;
using Qwen2Quant.EndToEnd.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>
/// Perplexities of the built-in model that Hugging Face transformers 5.17.0 computed (torch 2.13.0, CPU, F32 arithmetic on the BF16 weights,
/// windows without overlap from the start of the held-out text), from the command line.
/// </summary>
public sealed class GoldenFigureTests(ITestOutputHelper print)
{
    [Theory]
    [InlineData(50.14002751681016, 4080, "--chunks 16")]
    [InlineData(41.93090747075133, 2040, "--protocol full --context 256 --chunks 8")]
    public void PerplexityIsTransformers(double golden, int scoredTokens, string options)
    {
        System.Text.Json.JsonElement result = CliCommand.Succeed(["perplexity", Models.Tiny, "--data", "builtin:text", .. options.Split(' '), "--json"]).Json();
        double ratio = result.GetProperty("perplexity").GetDouble() / golden;
        print.WriteLine((ratio - 1).ToString("E2", CultureInfo.InvariantCulture));
        Assert.Equal(scoredTokens, result.GetProperty("tokens").GetInt32());
        Assert.InRange(ratio, 1 - 1e-4, 1 + 1e-4);
    }
}
