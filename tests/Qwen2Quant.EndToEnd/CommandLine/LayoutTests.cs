using System.Globalization;
using System.Text.Json;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Packed folders of every layout as a user makes, measures, repacks and undoes them; real llama.cpp agrees on what becomes of them.</summary>
public sealed class LayoutTests(ITestOutputHelper print) : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("awq:w4g64", "AWQ GEMM")]
    [InlineData("compressed-tensors:FP8", "compressed-tensors")]
    [InlineData("mlx:w4g64", "MLX")]
    public void AFolderIsMadeMeasuredAndUndone(string scheme, string container)
    {
        string packed = _folder.File("packed"), plain = _folder.File("plain");
        JsonElement report = CliCommand.Succeed("quantize", Models.Tiny, "--to", scheme, "--method", "rtn", "--out", packed, "--validate", "builtin:text", "--chunks", "4", "--json").Json();
        double divergence = report.GetProperty("validation").GetProperty("mean_kld").GetDouble();
        Assert.InRange(divergence, 1e-6, 0.05);
        Assert.Contains(container, CliCommand.Succeed("inspect", packed).Output, StringComparison.Ordinal);
        CliCommand.Succeed("verify", packed);
        CliCommand.Succeed("dequantize", packed, "--type", "f32", "--out", plain);
        Assert.False(JsonDocument.Parse(File.ReadAllText(Path.Combine(plain, "config.json"))).RootElement.TryGetProperty("quantization_config", out _));
        JsonElement same = CliCommand.Succeed("compare", packed, plain, "--data", Texts.HeldOutPath, "--chunks", "4", "--exact", "--json").Json();
        Assert.InRange(same.GetProperty("mean_kld").GetDouble(), 0, 1e-9);
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{scheme}: {divergence:F5}"));
    }

    /// <summary>A mixture in each layout, whose matrices real llama.cpp finds to be the same.</summary>
    [LlamaTheory(Shared = true)]
    [InlineData("awq:w4g64")]
    [InlineData("mlx:w4g64")]
    public void AMixtureIsMadeMeasuredAndConverted(string scheme)
    {
        string packed = _folder.File("packed"), gguf = _folder.File("plain.gguf"), plain = _folder.File("plain");
        JsonElement report = CliCommand.Succeed("quantize", SharedData.Path("models/tiny-qwen2moe"), "--to", scheme, "--method", "rtn", "--out", packed, "--validate", "builtin:text", "--chunks", "4", "--json").Json();
        Assert.InRange(report.GetProperty("validation").GetProperty("mean_kld").GetDouble(), 1e-6, 0.05);
        Assert.Contains("8 experts", CliCommand.Succeed("inspect", packed).Output, StringComparison.Ordinal);
        CliCommand.Succeed("verify", packed);
        CliCommand.Succeed("convert", packed, "--to", "gguf", "--type", "f32", "--out", gguf);
        CliCommand.Succeed("convert", packed, "--to", "safetensors", "--type", "f32", "--out", plain);
        double ours = CliCommand.Succeed("perplexity", packed, "--data", Texts.HeldOutPath, "--chunks", "4", "--exact", "--json").Json().GetProperty("perplexity").GetDouble();
        double unpacked = CliCommand.Succeed("perplexity", plain, "--data", Texts.HeldOutPath, "--chunks", "4", "--exact", "--json").Json().GetProperty("perplexity").GetDouble();
        using LlamaModel llama = LlamaModel.Load(gguf);
        double theirs = llama.Perplexity(Texts.HeldOut, 4).Value;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{scheme}: {ours:F5} here, {unpacked:F5} unpacked, {theirs:F5} in llama.cpp"));
        Assert.InRange(ours / theirs, 0.999, 1.001);
        Assert.InRange(ours / unpacked, 1 - 1e-6, 1 + 1e-6);
    }

    [LlamaTheory]
    [InlineData("gptq:w4g64", "gguf:Q4_0")]
    [InlineData("awq:w4g64", "gguf:Q8_0")]
    [InlineData("compressed-tensors:W8A8", "gguf:Q8_0")]
    public void LlamaCppFindsThePerplexityOfWhatWasRepacked(string from, string to)
    {
        string packed = _folder.File("packed"), output = _folder.File("out.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", from, "--samples", "8", "--out", packed);
        JsonElement report = CliCommand.Succeed("repack", packed, "--to", to, "--out", output, "--json").Json();
        Assert.Equal(21, report.GetProperty("tensors").EnumerateArray().Count(tensor => tensor.GetProperty("solver").GetString() == "exact"));
        double ours = CliCommand.Succeed("perplexity", packed, "--data", Texts.HeldOutPath, "--chunks", "4", "--exact", "--json").Json().GetProperty("perplexity").GetDouble();
        using LlamaModel llama = LlamaModel.Load(output);
        double theirs = llama.Perplexity(Texts.HeldOut, 4).Value;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{from} to {to}: {ours:F5} here, {theirs:F5} in llama.cpp"));
        Assert.InRange(ours / theirs, 0.995, 1.005);
    }

    /// <summary>Checkpoints that others wrote, as GGUF in single precision.</summary>
    [LlamaTheory(Shared = true)]
    [InlineData("autoawq-g128")]
    [InlineData("llmcompressor-NVFP4A16")]
    [InlineData("mlx-w3g32")]
    public void LlamaCppFindsThePerplexityOfGoldens(string folder)
    {
        string golden = SharedData.Path($"models/golden/{folder}"), output = _folder.File("out.gguf");
        CliCommand.Succeed("convert", golden, "--to", "gguf", "--type", "f32", "--out", output);
        double ours = CliCommand.Succeed("perplexity", golden, "--data", Texts.HeldOutPath, "--chunks", "4", "--exact", "--json").Json().GetProperty("perplexity").GetDouble();
        using LlamaModel llama = LlamaModel.Load(output);
        double theirs = llama.Perplexity(Texts.HeldOut, 4).Value;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{folder}: {ours:F5} here, {theirs:F5} in llama.cpp"));
        Assert.InRange(ours / theirs, 0.999, 1.001);
    }

    [LlamaFact]
    public void LlamaCppReadsPartsThatWereSplit()
    {
        string whole = _folder.File("m.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q8_0", "--out", whole);
        CliResult split = CliCommand.Succeed("split", whole, "--max-tensors", "9", "--out", _folder.File("parts.gguf"), "--json");
        Assert.Equal(5, split.Json().GetProperty("files").GetInt32());
        using LlamaModel one = LlamaModel.Load(whole), parts = LlamaModel.Load(_folder.File("parts-00001-of-00005.gguf"));
        Assert.Equal(one.Perplexity(Texts.HeldOut, 2).Value, parts.Perplexity(Texts.HeldOut, 2).Value);
    }

    [Fact]
    public void WhatCannotBeHeldIsRefused()
    {
        string packed = _folder.File("packed");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gptq:w8g64", "--method", "rtn", "--out", packed);
        CliResult refused = new CliCommand("repack", packed, "--to", "awq:w4g64", "--out", _folder.File("awq")).Run().Expect(3);
        Assert.Contains("--allow-requantize", refused.Error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder.File("awq")));
        CliCommand.Succeed("repack", packed, "--to", "awq:w4g64", "--allow-requantize", "--out", _folder.File("awq"));
        CliCommand.Succeed("pad", Models.Tiny, "--intermediate-multiple", "768", "--untie", "--out", _folder.File("wide"));
        double before = Perplexity(Models.Tiny), after = Perplexity(_folder.File("wide"));
        Assert.Equal(before, after, 1e-6 * before);

        static double Perplexity(string model) => CliCommand.Succeed("perplexity", model, "--data", "builtin:text", "--chunks", "2", "--json").Json().GetProperty("perplexity").GetDouble();
    }
}
