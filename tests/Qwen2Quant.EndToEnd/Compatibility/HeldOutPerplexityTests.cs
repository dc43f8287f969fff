using System.Globalization;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>Perplexity of the whole held-out text, dense and with experts: llama-perplexity's rule, and the value that llama.cpp finds on the same file.</summary>
public sealed class HeldOutPerplexityTests(ITestOutputHelper print) : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [LlamaTheory(Shared = true)]
    [InlineData("tiny-qwen2", "f32", 0.001)]
    [InlineData("tiny-qwen2", "f16", 0.002)]
    [InlineData("tiny-qwen2", "bf16", 0.002)]
    [InlineData("tiny-qwen2moe", "f32", 0.001)]
    [InlineData("tiny-qwen2moe", "f16", 0.002)]
    [InlineData("tiny-qwen2moe", "bf16", 0.002)]
    public void TheWholeTextGivesLlamaCppsFigure(string model, string type, double tolerance)
    {
        string path = _folder.File("model.gguf"), text = SharedData.Path("data/text/heldout.txt");
        CliCommand.Succeed("convert", SharedData.Path($"models/{model}"), "--to", "gguf", "--type", type, "--out", path);
        System.Text.Json.JsonElement ours = CliCommand.Succeed("perplexity", path, "--data", text, "--json").Json();
        using LlamaModel llama = LlamaModel.Load(path);
        // llama.cpp's tools take one line feed from the end of a file.
        LlamaPerplexity theirs = llama.Perplexity(File.ReadAllText(text).TrimEnd('\n'));
        double value = ours.GetProperty("perplexity").GetDouble(), difference = (value / theirs.Value) - 1;
        print.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"{model} {type}: {value:F5} here, {theirs.Value:F5} in llama.cpp, difference {100 * difference:F5} % over {theirs.ScoredTokens} tokens"));
        Assert.Equal((theirs.ScoredTokens, theirs.Chunks), (ours.GetProperty("tokens").GetInt32(), ours.GetProperty("chunks").GetInt32()));
        Assert.InRange(difference, -tolerance, tolerance);
        Assert.Equal(1, ours.GetProperty("standard_error").GetDouble() / theirs.StandardError, 0.005);
    }
}
