using System.Globalization;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>llama.cpp loads every type that is written, cuts text into the same tokens, and finds the same perplexity.</summary>
public sealed class LlamaReadsOurFilesTests(ITestOutputHelper print) : IDisposable
{
    /// <summary>Windows of 512 with 255 scored tokens each: 2,295 tokens.</summary>
    private const int Chunks = 9;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>The larger tolerance is for types whose kernels in llama.cpp round the activations as well.</summary>
    [LlamaTheory]
    [InlineData("F32", 0.001)]
    [InlineData("F16", 0.002)]
    [InlineData("BF16", 0.002)]
    [InlineData("Q8_0", 0.005)]
    [InlineData("Q4_0", 0.005)]
    [InlineData("Q4_1", 0.005)]
    [InlineData("Q5_0", 0.005)]
    [InlineData("Q5_1", 0.005)]
    [InlineData("Q6_K", 0.005)]
    public void TokensAndPerplexityAgree(string type, double tolerance)
    {
        string path = _folder.File($"tiny-{type}.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", $"gguf:{type}", "--out", path);
        using LlamaModel llama = LlamaModel.Load(path);
        AssertSameTokens(path, llama);

        double ours = CliCommand.Succeed("perplexity", path, "--data", Texts.HeldOutPath, "--chunks", $"{Chunks}", "--json").Json().GetProperty("perplexity").GetDouble();
        LlamaPerplexity theirs = llama.Perplexity(Texts.HeldOut, Chunks);
        Assert.True(theirs.ScoredTokens >= 2048);
        double difference = (ours / theirs.Value) - 1;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{type}: perplexity {ours:F5} here, {theirs.Value:F5} in llama.cpp, difference {100 * difference:F5} % over {theirs.ScoredTokens} tokens"));
        Assert.InRange(difference, -tolerance, tolerance);
    }

    private static void AssertSameTokens(string path, LlamaModel llama)
    {
        using Checkpoint checkpoint = Models.Open(path);
        BpeTokenizer tokenizer = new(checkpoint.Tokenizer);
        IReadOnlyList<string> lines = Texts.Lines(200);
        Assert.Equal(200, lines.Count);
        foreach (string line in lines) Assert.Equal(llama.Tokenize(line), tokenizer.Encode(line, parseSpecial: false));

        string all = string.Join('\n', lines);
        CliResult printed = new CliCommand("tokenize", path, "-", "--json") { Input = all }.Run().Expect(0);
        Assert.Equal(llama.Tokenize(all), printed.Json().GetProperty("tokens").EnumerateArray().Select(token => token.GetProperty("id").GetInt32()));
    }
}
