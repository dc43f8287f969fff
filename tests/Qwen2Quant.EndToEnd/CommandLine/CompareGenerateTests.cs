using System.Text.Json;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary><c>compare --generate</c>: greedy texts of two models, and where they part.</summary>
public sealed class CompareGenerateTests : IDisposable
{
    private const int Count = 24;

    private static readonly string[] Lines = ["And it came to pass", "The king said", "Once upon a time", "It was a dark and"];

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Both texts, and so the place where they part, are llama.cpp's own.</summary>
    [LlamaFact]
    public void TextsAndPlacesAreLlamaCpps()
    {
        string original = _folder.File("f32.gguf"), candidate = _folder.File("q2-f32.gguf");
        CliCommand.Succeed("convert", Models.Tiny, "--to", "gguf", "--type", "f32", "--out", original);
        // As floats: beside quantized weights llama.cpp rounds the activations as well.
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q2_K", "--out", _folder.File("q2.gguf"));
        CliCommand.Succeed("convert", _folder.File("q2.gguf"), "--to", "gguf", "--type", "f32", "--out", candidate);
        JsonElement generation = Json("compare", original, candidate, "--generate", $"{Count}", "--prompts", Prompts()).GetProperty("generation");
        JsonElement[] prompts = [.. generation.GetProperty("prompts").EnumerateArray()];
        Assert.Equal(Lines, prompts.Select(prompt => prompt.GetProperty("prompt").GetString()));
        using LlamaModel first = LlamaModel.Load(original), second = LlamaModel.Load(candidate);
        List<int> agreed = [];
        foreach (JsonElement prompt in prompts)
        {
            int[] tokens = first.Tokenize(prompt.GetProperty("prompt").GetString()!);
            int[] expected = first.GenerateGreedy(tokens, Count), found = second.GenerateGreedy(tokens, Count);
            agreed.Add(expected.AsSpan().CommonPrefixLength(found));
            Assert.Equal(agreed[^1], prompt.GetProperty("agreed_tokens").GetInt32());
            Assert.Equal(expected.SequenceEqual(found), prompt.GetProperty("identical").GetBoolean());
            Assert.Equal((expected.Length, found.Length), (prompt.GetProperty("base_tokens").GetInt32(), prompt.GetProperty("candidate_tokens").GetInt32()));
            Assert.Equal(Text(first, expected), prompt.GetProperty("base_text").GetString());
            Assert.Equal(Text(first, found), prompt.GetProperty("candidate_text").GetString());
        }

        Assert.True(agreed.Min() < Count);
        Assert.Equal(agreed.Average(), generation.GetProperty("mean_agreed_tokens").GetDouble(), 1e-12);
    }

    [Fact]
    public void AModelAgreesWithItselfWithAndWithoutAText()
    {
        JsonElement alone = Json("compare", Models.Tiny, Models.Tiny, "--generate", "6", "--prompts", Prompts());
        Assert.Equal(["generation"], alone.EnumerateObject().Select(property => property.Name));
        JsonElement generation = alone.GetProperty("generation");
        Assert.Equal((6, 6, 6, 1), (generation.GetProperty("tokens").GetInt32(), generation.GetProperty("mean_agreed_tokens").GetDouble(), generation.GetProperty("median_agreed_tokens").GetDouble(), generation.GetProperty("identical_share").GetDouble()));
        JsonElement both = Json("compare", Models.Tiny, Models.Tiny, "--generate", "6", "--prompts", Prompts(), "--data", "builtin:text", "--chunks", "1");
        Assert.Equal(0, both.GetProperty("mean_kld").GetDouble());
        Assert.Equal(generation.GetProperty("prompts").GetRawText().Length, both.GetProperty("generation").GetProperty("prompts").GetRawText().Length);
        CliResult text = CliCommand.Succeed("compare", Models.Tiny, Models.Tiny, "--generate", "6", "--prompts", Prompts());
        Assert.Contains("'The king said': the same 6 tokens", text.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void GatesHold()
    {
        string candidate = _folder.File("q2.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q2_K", "--out", candidate);
        string[] compare = ["compare", Models.Tiny, candidate, "--generate", $"{Count}", "--prompts", Prompts()];
        CliResult failed = new CliCommand([.. compare, "--fail-below", "generation.identical_share=1"]).Run().Expect(4);
        Assert.Contains("generation.identical_share", failed.Error, StringComparison.Ordinal);
        Assert.Contains("they part after", failed.Output, StringComparison.Ordinal);
        CliCommand.Succeed([.. compare, "--fail-below", "generation.mean_agreed_tokens=0", "--fail-above", $"generation.mean_agreed_tokens={Count}"]);
    }

    /// <summary>The first token that the base would choose ends the text of both: nothing is generated, and that agrees.</summary>
    [Fact]
    public void TokensThatEndATextAreAnEnd()
    {
        int first = Json("generate", Models.Tiny, "--prompt", Lines[0], "--max-tokens", "1", "--temperature", "0").GetProperty("tokens")[0].GetInt32();
        string folder = _folder.File("stops");
        Directory.CreateDirectory(folder);
        foreach (string name in Directory.GetFiles(Models.TinyFolder)) File.Copy(name, Path.Combine(folder, Path.GetFileName(name)));
        File.WriteAllText(Path.Combine(folder, "generation_config.json"), $"{{\"eos_token_id\": [{first}]}}");
        JsonElement prompt = Json("compare", folder, Models.Tiny, "--generate", "8", "--prompts", _folder.Write("one.txt", Lines[0])).GetProperty("generation").GetProperty("prompts")[0];
        Assert.Equal((0, true, 0, ""), (prompt.GetProperty("agreed_tokens").GetInt32(), prompt.GetProperty("identical").GetBoolean(), prompt.GetProperty("base_tokens").GetInt32(), prompt.GetProperty("candidate_text").GetString()));
    }

    private static string Text(LlamaModel model, int[] tokens) => System.Text.Encoding.UTF8.GetString([.. tokens.SelectMany(model.Piece)]);

    private static JsonElement Json(params string[] arguments) => CliCommand.Succeed([.. arguments, "--json"]).Json();

    private string Prompts() => _folder.Write("prompts.txt", string.Join("\r\n\r\n", Lines) + "\n");
}
