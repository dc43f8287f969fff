using System.Globalization;
using System.Numerics.Tensors;
using System.Text.Json;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>Greedy texts of <c>generate</c>, token for token: llama.cpp's on the same file, and Transformers' on the same weights.</summary>
public sealed class GreedyTextTests(ITestOutputHelper print) : IDisposable
{
    private const int Count = 64;

    /// <summary>llama.cpp's kernel for Q8_0 rounds activations to 8 bits: where the two best logits are closer than this, either may win.</summary>
    private const float Margin = 0.05f;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [LlamaFact]
    public void TheBuiltInModelInF32()
    {
        string path = Convert(Models.Tiny, "f32");
        using LlamaModel llama = LlamaModel.Load(path);
        foreach (string prompt in new[] { "And it came to pass", "It was a dark and stormy night;" }) AssertSame(path, llama, prompt, llama.Tokenize(prompt));
    }

    [LlamaTheory(Shared = true)]
    [InlineData("tiny-qwen2")]
    [InlineData("tiny-qwen2moe")]
    public void BothModelsInF32(string model)
    {
        string path = Convert(SharedData.Path($"models/{model}"), "f32");
        using LlamaModel llama = LlamaModel.Load(path);
        JsonElement[] texts = Golden(model);
        Assert.Equal(2, texts.Length);
        foreach (JsonElement golden in texts)
        {
            int[] prompt = Ids(golden, "prompt_tokens");
            string text = golden.GetProperty("prompt").GetString()!;
            Assert.Equal(prompt, llama.Tokenize(text));
            Assert.Equal(Ids(golden, "greedy_tokens"), AssertSame(path, llama, text, prompt));
        }
    }

    [LlamaTheory(Shared = true)]
    [InlineData("tiny-qwen2")]
    [InlineData("tiny-qwen2moe")]
    public void BothModelsInQ8_0(string model)
    {
        string path = Convert(SharedData.Path($"models/{model}"), "q8_0");
        using LlamaModel llama = LlamaModel.Load(path);
        int compared = 0;
        foreach (JsonElement golden in Golden(model))
        {
            int[] prompt = Ids(golden, "prompt_tokens");
            int[] ours = Generate(path, golden.GetProperty("prompt").GetString()!), theirs = llama.GenerateGreedy(prompt, Count);
            int sure = SureTokens(llama, prompt, theirs);
            print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{model}: {ours.AsSpan().CommonPrefixLength(theirs)} tokens are the same, {sure} were to be"));
            Assert.Equal(theirs[..sure], ours[..Math.Min(sure, ours.Length)]);
            compared += sure;
        }

        Assert.True(compared >= 8, "next to nothing could be compared");
    }

    private string Convert(string model, string type)
    {
        string path = _folder.File($"{type}.gguf");
        CliCommand.Succeed("convert", model, "--to", "gguf", "--type", type, "--out", path);
        return path;
    }

    private static int[] AssertSame(string path, LlamaModel llama, string prompt, int[] promptIds)
    {
        int[] ours = Generate(path, prompt);
        Assert.Equal(Count, ours.Length);
        Assert.Equal(llama.GenerateGreedy(promptIds, Count), ours);
        return ours;
    }

    private static int[] Generate(string path, string prompt) => Ids(
        CliCommand.Succeed("generate", path, "--prompt", prompt, "--temperature", "0", "--repetition-penalty", "1", "--max-tokens", $"{Count}", "--json").Json(), "tokens");

    /// <summary>Tokens before the first whose logit is not above all others by the margin.</summary>
    private static int SureTokens(LlamaModel llama, int[] prompt, int[] generated)
    {
        ReadOnlySpan<float> logits = llama.Logits([.. prompt, .. generated], prompt.Length - 1);
        for (int i = 0; i < generated.Length; i++)
        {
            float[] row = logits.Slice(i * llama.VocabularySize, llama.VocabularySize).ToArray();
            float best = TensorPrimitives.Max<float>(row);
            row[TensorPrimitives.IndexOfMax<float>(row)] = float.NegativeInfinity;
            if (best - TensorPrimitives.Max<float>(row) < Margin) return i;
        }

        return generated.Length;
    }

    private static JsonElement[] Golden(string model)
    {
        using JsonDocument index = JsonDocument.Parse(File.ReadAllBytes(SharedData.Path("models/golden/index.json")));
        return [.. index.RootElement.Clone().GetProperty("generation").EnumerateArray().Where(entry => entry.GetProperty("model").ValueEquals(model))];
    }

    private static int[] Ids(JsonElement element, string key) => [.. element.GetProperty(key).EnumerateArray().Select(id => id.GetInt32())];
}
