using System.Globalization;
using System.Text.Json.Nodes;
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

    [LlamaTheory]
    [InlineData("\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 64")]
    [InlineData("\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 64, \"attention_factor\": 0.9, \"beta_fast\": 8")]
    [InlineData("\"type\": \"linear\", \"factor\": 1.5")]
    public void ScaledPositionsAgree(string scaling)
    {
        string folder = _folder.File("scaled"), path = _folder.File("scaled.gguf");
        CliCommand.Succeed("convert", Models.Tiny, "--to", "safetensors", "--out", folder);
        string config = Path.Combine(folder, "config.json");
        JsonNode json = JsonNode.Parse(File.ReadAllText(config))!;
        json["rope_scaling"] = JsonNode.Parse($"{{{scaling}}}");
        File.WriteAllText(config, json.ToJsonString());
        CliCommand.Succeed("convert", folder, "--to", "gguf", "--type", "f32", "--out", path);

        using LlamaModel llama = LlamaModel.Load(path);
        LlamaPerplexity theirs = llama.Perplexity(Texts.HeldOut, Chunks);
        foreach (string model in new[] { folder, path })
        {
            double ours = CliCommand.Succeed("perplexity", model, "--data", Texts.HeldOutPath, "--chunks", $"{Chunks}", "--json").Json().GetProperty("perplexity").GetDouble();
            print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{scaling}: perplexity {ours:F5} here, {theirs.Value:F5} in llama.cpp"));
            Assert.InRange(ours / theirs.Value, 0.999, 1.001);
        }
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
