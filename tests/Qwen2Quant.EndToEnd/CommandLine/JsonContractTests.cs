using System.Text.Json;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary><c>--json</c> prints one document with the keys that scripts rely on, and nothing beside it.</summary>
public sealed class JsonContractTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Quantize()
    {
        string path = _folder.File("m.gguf");
        JsonElement report = Json("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", path, "--validate", "builtin:text", "--chunks", "1");
        Has(report, "version", "source", "scheme", "effort", "output", "bytes", "parameters", "bits_per_weight", "seconds", "peak_memory_bytes", "dry_run", "tensors", "events", "validation");
        Assert.Equal(path, report.GetProperty("output").GetString());
        Assert.Equal(new FileInfo(path).Length, report.GetProperty("bytes").GetInt64());
        Assert.InRange(report.GetProperty("peak_memory_bytes").GetInt64(), 10_000_000, 10_000_000_000);
        JsonElement[] tensors = [.. report.GetProperty("tensors").EnumerateArray()];
        Assert.Equal(38, tensors.Length);
        foreach (JsonElement tensor in tensors) Has(tensor, "name", "type", "requested_type", "rmse", "relative_error", "solver");
        HasComparison(report.GetProperty("validation"));

        using JsonDocument kept = JsonDocument.Parse(File.ReadAllBytes(path + ".qwen2quant.json"));
        Assert.Equal(report.GetProperty("validation").GetProperty("mean_kld").GetDouble(), kept.RootElement.GetProperty("validation").GetProperty("mean_kld").GetDouble());
    }

    [Fact]
    public void QuantizeWithSubstitutionsAndDryRun()
    {
        string source = TestCheckpoint.Write(_folder.File("narrow"), TestCheckpoint.Small);
        JsonElement plan = Json("quantize", source, "--to", "gguf:Q4_0", "--out", _folder.File("m.gguf"), "--dry-run");
        Assert.True(plan.GetProperty("dry_run").GetBoolean());
        Assert.False(File.Exists(_folder.File("m.gguf")));
        JsonElement substitution = plan.GetProperty("events").EnumerateArray().First(entry => entry.GetProperty("is_substitution").GetBoolean());
        Has(substitution, "code", "message", "tensor");
        JsonElement tensor = plan.GetProperty("tensors").EnumerateArray().Single(entry => entry.GetProperty("name").ValueEquals(substitution.GetProperty("tensor").GetString()));
        Assert.Equal(("Q6_K", "Q8_0"), (tensor.GetProperty("requested_type").GetString(), tensor.GetProperty("type").GetString()));

        JsonElement done = Json("quantize", source, "--to", "gguf:Q4_0", "--out", _folder.File("m.gguf"));
        Assert.Equal(plan.GetProperty("bytes").GetInt64(), done.GetProperty("bytes").GetInt64());
        Assert.Equal(new FileInfo(_folder.File("m.gguf")).Length, done.GetProperty("bytes").GetInt64());
    }

    [Fact]
    public void ConvertOfAFolder()
    {
        JsonElement report = Json("convert", Models.Tiny, "--to", "safetensors", "--type", "f16", "--out", _folder.File("folder"));
        Has(report, "output", "bytes", "bits_per_weight", "seconds", "peak_memory_bytes", "tensors", "events");
        Assert.True(File.Exists(_folder.File("folder/qwen2quant.json")));
        Assert.True(File.Exists(_folder.File("folder/tokenizer.json")));
        Assert.Equal("f16", report.GetProperty("tensors")[0].GetProperty("type").GetString(), ignoreCase: true);
    }

    [Fact]
    public void SplitMergeDequantizePadAndRepack()
    {
        string whole = _folder.File("m.gguf"), packed = _folder.File("packed");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q8_0", "--out", whole);
        JsonElement plan = Json("split", whole, "--max-shard-size", "1MB", "--out", _folder.File("cut.gguf"), "--dry-run");
        Has(plan, "output", "files", "tensors", "bytes", "seconds", "dry_run", "events");
        Assert.False(File.Exists(plan.GetProperty("output").GetString()));
        JsonElement split = Json("split", whole, "--max-shard-size", "1MB", "--out", _folder.File("cut.gguf"));
        Assert.Equal(plan.GetProperty("files").GetInt32(), Directory.GetFiles(_folder.Path, "cut-*.gguf").Length);
        Json("merge", split.GetProperty("output").GetString()!, "--out", _folder.File("again.gguf"));
        Assert.Equal(File.ReadAllBytes(whole), File.ReadAllBytes(_folder.File("again.gguf")));

        Assert.Contains("GGUF v3: 22 x Q8_0", Event(Json("dequantize", whole, "--out", _folder.File("plain")), "dequantized"), StringComparison.Ordinal);
        Assert.Equal("intermediate_size: 512 became 600", Event(Json("pad", Models.Tiny, "--intermediate-multiple", "600", "--out", _folder.File("padded")), "padded"));
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gptq:w4g32", "--method", "rtn", "--out", packed);
        JsonElement repacked = Json("repack", packed, "--to", "gguf:Q4_0", "--out", _folder.File("r.gguf"));
        Assert.Equal(21, repacked.GetProperty("tensors").EnumerateArray().Count(tensor => tensor.GetProperty("solver").ValueEquals("exact")));

        static string Event(JsonElement report, string code) =>
            report.GetProperty("events").EnumerateArray().Single(item => item.GetProperty("code").ValueEquals(code)).GetProperty("message").GetString()!;
    }

    [Fact]
    public void Perplexity()
    {
        JsonElement result = Json("perplexity", Models.Tiny, "--data", "builtin:text", "--chunks", "2", "--context", "128");
        Has(result, "perplexity", "standard_error", "tokens", "context", "chunks", "seconds");
        Assert.False(result.TryGetProperty("activations", out _));
        Assert.Equal((2 * 63, 128, 2), (result.GetProperty("tokens").GetInt32(), result.GetProperty("context").GetInt32(), result.GetProperty("chunks").GetInt32()));
    }

    [Fact]
    public void Activations()
    {
        string[] measure = ["--data", "builtin:text", "--chunks", "2", "--context", "64", "--activations"];
        JsonElement[] activations = [.. Json(["perplexity", Models.Tiny, .. measure]).GetProperty("activations").EnumerateArray()];
        Has(activations[0], "input", "layer", "max_abs", "channel", "window", "position");
        Assert.Equal("lm_head", activations[^1].GetProperty("input").GetString());
        Assert.False(activations[^1].TryGetProperty("layer", out _));
        JsonElement compared = Json(["compare", Models.Tiny, Models.Tiny, .. measure]).GetProperty("activations");
        Assert.Equal(activations.Length, compared.GetProperty("base").GetArrayLength());
        Assert.Equal(activations.Length, compared.GetProperty("candidate").GetArrayLength());
        JsonElement calibrated = Json("calibrate", Models.Tiny, "--data", "builtin:text", "--samples", "2", "--context", "64", "--out", _folder.File("imatrix.gguf"));
        Assert.Equal(activations.Length, calibrated.GetProperty("activations").GetArrayLength());
    }

    [Fact]
    public void Compare()
    {
        string path = _folder.File("m.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q8_0", "--out", path);
        JsonElement result = Json("compare", Models.Tiny, path, "--data", "builtin:text", "--chunks", "1");
        HasComparison(result);
        Assert.Equal(255, result.GetProperty("tokens").GetInt32());
        Assert.InRange(result.GetProperty("top_token_agreement").GetDouble(), 0.95, 1);
    }

    [Fact]
    public void InspectVerifyTypesTokenizeGenerate()
    {
        JsonElement inspected = Json("inspect", Models.Tiny, "--tensors", "--metadata");
        Has(inspected, "model", "container", "architecture", "parameters", "bytes", "bits_per_weight", "types", "tensors");
        Assert.Equal(2_297_088, inspected.GetProperty("parameters").GetInt64());

        JsonElement verified = Json("verify", Models.Tiny);
        Has(verified, "path", "container", "tensors", "parameters", "bytes", "seconds");
        Assert.Equal(38, verified.GetProperty("tensors").GetInt32());

        JsonElement types = Json("types");
        Has(types.GetProperty("schemes")[0], "scheme", "aliases", "type", "file_type", "block_values", "bits_per_weight", "needs_imatrix", "writes");
        Has(types.GetProperty("types")[0], "name", "id", "block_values", "block_bytes", "bits_per_weight", "reads", "writes");
        Has(Json("types", "--recipe", "Q4_0"), "name", "file_type", "type", "rules");

        JsonElement tokens = Json("tokenize", Models.Tiny, "Call me Ishmael.");
        Assert.Equal(tokens.GetProperty("count").GetInt32(), tokens.GetProperty("tokens").GetArrayLength());
        Assert.Equal("Call me Ishmael.", string.Concat(tokens.GetProperty("tokens").EnumerateArray().Select(token => token.GetProperty("piece").GetString())));

        JsonElement generated = Json("generate", Models.Tiny, "--prompt", "And the LORD", "--max-tokens", "4", "--temperature", "0");
        Has(generated, "text", "tokens", "stop_reason", "prompt_tokens", "prompt_tokens_run", "seconds", "prompt_tokens_per_second", "tokens_per_second", "events");
        Assert.Equal(4, generated.GetProperty("tokens").GetArrayLength());
    }

    private static void HasComparison(JsonElement result)
    {
        Has(result, "base", "candidate", "mean_kld", "mean_kld_standard_error", "kld", "perplexity_ratio", "top_token_agreement", "tokens");
        Has(result.GetProperty("base"), "perplexity", "standard_error");
        Has(result.GetProperty("candidate"), "perplexity", "standard_error");
        Has(result.GetProperty("kld"), "p50", "p90", "p95", "p99", "p999", "max");
    }

    private static void Has(JsonElement element, params string[] keys)
    {
        HashSet<string> found = [.. element.EnumerateObject().Select(property => property.Name)];
        Assert.Superset(new HashSet<string>(keys), found);
        Assert.All(found, key => Assert.Matches("^[a-z0-9_]+$", key));
    }

    private static JsonElement Json(params string[] arguments) => CliCommand.Succeed([.. arguments, "--json"]).Json();
}
