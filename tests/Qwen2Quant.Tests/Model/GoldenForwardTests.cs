using System.Runtime.InteropServices;
using System.Text.Json;
using Qwen2Quant.Model;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Model;

/// <summary>Logits and perplexities that Hugging Face transformers computed; index.json says how.</summary>
public class GoldenForwardTests
{
    [SharedTheory]
    [InlineData("tiny-qwen2.plain.logits.f32")]
    [InlineData("tiny-qwen2.yarn.logits.f32")]
    [InlineData("tiny-qwen2.window.logits.f32")]
    [InlineData("tiny-qwen2moe.plain.logits.f32")]
    [InlineData("tiny-qwen2moe.yarn.logits.f32")]
    public void LogitsAreTransformers(string file)
    {
        JsonElement golden = Entry(file);
        Qwen2Model model = Load(golden);
        int[] tokens = [.. golden.GetProperty("tokens").EnumerateArray().Select(token => token.GetInt32())];
        float[] logits = ForwardTests.Run(model, tokens, [tokens.Length]);
        ReadOnlySpan<float> expected = MemoryMarshal.Cast<byte, float>(File.ReadAllBytes(SharedData.Path($"models/golden/{file}")));
        int[] positions = [.. golden.GetProperty("positions").GetString()!.Split("..").Select(int.Parse)];
        Assert.Equal((positions[1] - positions[0] + 1) * model.Config.VocabSize, expected.Length);
        ReadOnlySpan<float> found = logits.AsSpan(positions[0] * model.Config.VocabSize, expected.Length);
        float worst = 0;
        for (int i = 0; i < found.Length; i++) worst = MathF.Max(worst, MathF.Abs(found[i] - expected[i]));
        Assert.InRange(worst, 0, 1e-3f);
    }

    [SharedTheory]
    [InlineData("tiny-qwen2.plain.logits.f32")]
    [InlineData("tiny-qwen2.window.logits.f32")]
    [InlineData("tiny-qwen2moe.plain.logits.f32")]
    public void PerplexityIsTransformers(string file)
    {
        JsonElement golden = Entry(file);
        double perplexity = Perplexity(Load(golden), 256, 8, 0, out int scored);
        Assert.Equal(2040, scored);
        AssertClose(golden.GetProperty("perplexity").GetDouble(), perplexity);
    }

    [SharedTheory]
    [InlineData("tiny-qwen2.plain.logits.f32")]
    [InlineData("tiny-qwen2moe.plain.logits.f32")]
    public void PerplexityByTheRuleOfLlamaPerplexity(string file)
    {
        JsonElement golden = Entry(file);
        JsonElement rule = golden.GetProperty("llama_perplexity_rule");
        int context = rule.GetProperty("context").GetInt32();
        double perplexity = Perplexity(Load(golden), context, rule.GetProperty("chunks").GetInt32(), context / 2, out int scored);
        Assert.Equal(rule.GetProperty("scored_tokens").GetInt32(), scored);
        AssertClose(rule.GetProperty("perplexity").GetDouble(), perplexity);
    }

    [SharedTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void GreedyTextIsTransformers(int index)
    {
        JsonElement golden = Index().GetProperty("generation")[index];
        Qwen2Model model = Load(golden);
        int[] prompt = [.. golden.GetProperty("prompt_tokens").EnumerateArray().Select(token => token.GetInt32())];
        int[] expected = [.. golden.GetProperty("greedy_tokens").EnumerateArray().Select(token => token.GetInt32())];
        Assert.Equal(expected, Generator.Generate(model, prompt, new SamplingOptions(), expected.Length, new HashSet<int>()));
    }

    private static JsonElement Index() => JsonDocument.Parse(File.ReadAllBytes(SharedData.Path("models/golden/index.json"))).RootElement;

    private static JsonElement Entry(string file) => Index().GetProperty("logits").EnumerateArray().Single(entry => entry.GetProperty("file").GetString() == file);

    private static Qwen2Model Load(JsonElement golden)
    {
        string folder = SharedData.Path($"models/{golden.GetProperty("model").GetString()}");
        Dictionary<string, JsonElement> keys = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "config.json"))).RootElement.EnumerateObject().ToDictionary(key => key.Name, key => key.Value);
        if (golden.TryGetProperty("config_overrides", out JsonElement overrides))
        {
            foreach (JsonProperty key in overrides.EnumerateObject()) keys[key.Name] = key.Value;
        }

        Qwen2Config config = Qwen2Config.ParseJson(JsonSerializer.SerializeToUtf8Bytes(keys), "config.json");
        CanonicalView view = CanonicalView.Over(MemorySource.Safetensors(Path.Combine(folder, "model.safetensors")), TensorCatalogue.For(config), folder);
        return Qwen2Model.Load(config, view, new ForwardOptions { Threads = 2 });
    }

    // The ids of heldout.txt's beginning, by the tiny models' tokenizer, 16 bits each.
    private static int[] HeldoutTokens()
    {
        byte[] bytes = File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "Model", "Data", "heldout-tokens.u16"));
        return Array.ConvertAll(MemoryMarshal.Cast<byte, ushort>(bytes).ToArray(), id => (int)id);
    }

    private static double Perplexity(Qwen2Model model, int context, int chunks, int firstScored, out int scored)
    {
        int[] tokens = HeldoutTokens();
        int vocabulary = model.Config.VocabSize;
        double loss = 0;
        scored = 0;
        for (int chunk = 0; chunk < chunks; chunk++)
        {
            int[] window = tokens[(chunk * context)..((chunk + 1) * context)];
            float[] logits = ForwardTests.Run(model, window, [context]);
            for (int position = firstScored; position < context - 1; position++)
            {
                ReadOnlySpan<float> row = logits.AsSpan(position * vocabulary, vocabulary);
                double maximum = double.NegativeInfinity, sum = 0;
                foreach (float logit in row) maximum = Math.Max(maximum, logit);
                foreach (float logit in row) sum += Math.Exp(logit - maximum);
                loss += maximum + Math.Log(sum) - row[window[position + 1]];
                scored++;
            }
        }

        return Math.Exp(loss / scored);
    }

    private static void AssertClose(double expected, double found) => Assert.InRange(found / expected, 1 - 1e-4, 1 + 1e-4);
}
