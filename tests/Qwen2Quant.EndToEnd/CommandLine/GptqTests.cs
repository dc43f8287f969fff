using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Whole models through GPTQ: better than rounding, the same whatever the threads, resumed at the layer, refused where it must be.</summary>
public sealed partial class GptqTests(ITestOutputHelper print) : IDisposable
{
    private const int Kill9 = 9;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("gguf:Q4_0", 0.8)]
    [InlineData("gguf:Q3_K_M", 0.8)]
    [InlineData("gguf:IQ3_S", 0.8)]
    [InlineData("gptq:w4g64", 0.75)]
    [InlineData("gptq:w3g128-asym-actorder", 0.75)]
    [InlineData("gptq:w4g64-descact", 0.8)]
    public void DivergesLessThanRounding(string scheme, double atMost)
    {
        double Run(string method)
        {
            string path = _folder.File(method + (scheme.StartsWith("gguf", StringComparison.Ordinal) ? ".gguf" : ""));
            // Rounding has no order of columns.
            string spelled = method == "rtn" ? scheme.Replace("-actorder", "", StringComparison.Ordinal).Replace("-descact", "", StringComparison.Ordinal) : scheme;
            string[] extra = method == "rtn" && scheme.Contains("IQ3", StringComparison.Ordinal) ? ["--calibration", "builtin:calibration"] : [];
            JsonElement report = CliCommand.Succeed(["quantize", Models.Tiny, "--to", spelled, "--method", method, "--samples", "32", "--out", path, "--validate", "builtin:text", "--json", .. extra]).Json();
            JsonElement tensor = report.GetProperty("tensors").EnumerateArray().First(tensor => tensor.GetProperty("name").GetString()!.Contains("down", StringComparison.Ordinal));
            Assert.Equal(method, tensor.GetProperty("solver").GetString());
            if (method == "gptq")
            {
                Assert.Equal(32 * 512, tensor.GetProperty("tokens_seen").GetInt64());
                Assert.Equal(0.01, tensor.GetProperty("damping").GetDouble());
                JsonElement gptq = tensor.GetProperty("gptq");
                Assert.InRange(gptq.GetProperty("output_error_after").GetDouble(), 1e-4, 0.8 * gptq.GetProperty("output_error_before").GetDouble());
                Assert.True(report.GetProperty("gptq").GetProperty("seconds").GetProperty("solve").GetDouble() > 0);
                Assert.InRange(report.GetProperty("peak_memory_bytes").GetInt64(), 1, report.GetProperty("gptq").GetProperty("planned_memory_bytes").GetInt64());
            }

            return report.GetProperty("validation").GetProperty("mean_kld").GetDouble();
        }

        double rounded = Run("rtn"), solved = Run("gptq");
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{scheme}: {solved:F6} against {rounded:F6}, {solved / rounded:F3}"));
        Assert.InRange(solved / rounded, 0, atMost);
    }

    /// <summary>Effort high takes the original model's inputs beside the quantized one's.</summary>
    [Theory]
    [InlineData("gguf:Q3_K_M", "gptq", "high", 0.75)]
    [InlineData("gptq:w4g64-asym", "awq", "normal", 0.96)]
    [InlineData("gptq:w4g64-asym", "awq+gptq", "normal", 0.75)]
    public void OtherMethodsDivergeLessThanRounding(string scheme, string method, string effort, double atMost)
    {
        JsonElement Run(params string[] options)
        {
            string path = _folder.File(options[1] + (scheme.StartsWith("gguf", StringComparison.Ordinal) ? ".gguf" : ""));
            return CliCommand.Succeed(["quantize", Models.Tiny, "--to", scheme, "--out", path, "--validate", "builtin:text", "--json", .. options]).Json();
        }

        JsonElement report = Run("--method", method, "--samples", "32", "--effort", effort);
        double Divergence(JsonElement from) => from.GetProperty("validation").GetProperty("mean_kld").GetDouble();
        double ratio = Divergence(report) / Divergence(Run("--method", "rtn"));
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{scheme} {method}: {ratio:F3}"));
        Assert.InRange(ratio, 0, atMost);
        Assert.Equal(method, report.GetProperty("method").GetString());
        Assert.InRange(report.GetProperty("peak_memory_bytes").GetInt64(), 1, report.GetProperty("gptq").GetProperty("planned_memory_bytes").GetInt64());
        Assert.Equal(method.Contains('w', StringComparison.Ordinal) || method.StartsWith('s'), report.TryGetProperty("rescaling", out JsonElement rescaling));
        if (method.StartsWith("awq", StringComparison.Ordinal)) Assert.All(rescaling.GetProperty("folds").EnumerateArray(), fold => Assert.InRange(fold.GetProperty("loss").GetDouble(), 0, 1));
    }

    [Theory]
    [InlineData("gguf:Q4_K_M", "gptq", "normal")]
    [InlineData("gptq:w4g128", "gptq", "high")]
    [InlineData("gguf:Q4_0", "awq+gptq", "normal")]
    public void BytesDoNotDependOnThreadsOrMemory(string scheme, string method, string effort)
    {
        byte[] Run(string threads, params string[] options)
        {
            string path = _folder.File($"{threads}-{options.Length}");
            CliCommand.Succeed(["quantize", Models.Tiny, "--to", scheme, "--method", method, "--effort", effort, "--samples", "8", "--out", path, "--threads", threads, .. options]);
            return File.ReadAllBytes(Directory.Exists(path) ? Path.Combine(path, "model.safetensors") : path);
        }

        byte[] expected = Run("2");
        Assert.Equal(expected, Run("1"));
        Assert.Equal(expected, Run("2", "--memory", method == "gptq" && effort == "normal" ? "330MB" : "400MB"));
    }

    [LlamaTheory]
    [InlineData("Q4_K_M")]
    [InlineData("Q2_K")]
    [InlineData("IQ3_S")]
    [InlineData("IQ1_M")]
    public void LlamaCppFindsTheSamePerplexity(string preset)
    {
        string path = _folder.File("solved.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:" + preset, "--method", "gptq", "--samples", "8", "--effort", "fast", "--out", path);
        using LlamaModel llama = LlamaModel.Load(path);
        double ours = CliCommand.Succeed("perplexity", path, "--data", Texts.HeldOutPath, "--chunks", "4", "--json").Json().GetProperty("perplexity").GetDouble();
        double theirs = llama.Perplexity(Texts.HeldOut, 4).Value;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{ours:F5} here, {theirs:F5} in llama.cpp"));
        Assert.InRange(ours / theirs, 0.995, 1.005);
    }

    [UnixTheory]
    [InlineData(2, 130)]
    [InlineData(Kill9, 137)]
    public void AStoppedRunGoesOnAtTheLayer(int signal, int exitCode)
    {
        if (Signals.IsIgnoredHere(signal)) return;
        string model = TestCheckpoint.Write(_folder.File("model"), Models.Wide(8)), whole = _folder.File("whole.gguf"), output = _folder.File("m.gguf"), work = _folder.File(".m.gguf.work");
        string[] arguments = ["quantize", model, "--to", "gguf:Q4_0", "--method", "gptq", "--samples", "2", "--context", "64", "--quiet", "--out"];
        CliCommand.Succeed([.. arguments, whole]);
        CliCommand command = new([.. arguments, output]);
        using Process process = command.Start();
        Task<string> text = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        while (!process.HasExited && !File.Exists(Path.Combine(work, "layer-00001-00000.json"))) Thread.Sleep(5);
        Assert.False(process.HasExited, "it ended before it could be stopped");
        Assert.Equal(0, Kill(process.Id, signal));
        command.Finish(process, text, error).Expect(exitCode);
        Assert.False(File.Exists(output));

        CliResult other = new CliCommand([.. arguments, output, "--resume", "--damping", "0.02"]).Run().Expect(2);
        Assert.Contains("damping 0.01 instead of 0.02", other.Error, StringComparison.Ordinal);
        DateTime first = File.GetLastWriteTimeUtc(Path.Combine(work, "layer-00000-00000.json"));
        // A layer whose bytes were lost is solved again.
        File.WriteAllBytes(Path.Combine(work, "layer-00001-00000.bin"), new byte[64]);
        Assert.True(first < DateTime.UtcNow);
        CliCommand.Succeed([.. arguments, output, "--resume"]);
        Assert.Equal(File.ReadAllBytes(whole), File.ReadAllBytes(output));
        Assert.False(Directory.Exists(work));
    }

    [Fact]
    public void StatisticsOfPartsAddUpAndSolveWithoutTheText()
    {
        string[] parts = [_folder.File("a.safetensors"), _folder.File("b.safetensors"), _folder.File("sum.safetensors")];
        foreach (string part in parts[..2]) CliCommand.Succeed("calibrate", Models.Tiny, "--depth", "gram", "--data", "builtin:calibration", "--samples", "8", "--out", part);
        JsonElement report = CliCommand.Succeed("calibrate", Models.Tiny, "--depth", "gram", "--in", parts[0], "--in", parts[1], "--out", parts[2], "--json").Json();
        Assert.Equal(("gram", 16), (report.GetProperty("depth").GetString(), report.GetProperty("chunks").GetInt32()));

        string one = _folder.File("one.gguf"), two = _folder.File("two.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--method", "gptq", "--statistics", parts[0], "--out", one);
        JsonElement solved = CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--method", "gptq", "--statistics", parts[2], "--out", two, "--json").Json();
        Assert.Equal("parallel", solved.GetProperty("gptq").GetProperty("schedule").GetString());
        Assert.Equal(16 * 512, solved.GetProperty("gptq").GetProperty("tokens").GetInt64());
        // Twice the same sums are the same Hessian, and powers of two round nothing.
        Assert.Equal(File.ReadAllBytes(one), File.ReadAllBytes(two));

        string other = TestCheckpoint.Write(_folder.File("other"), TestCheckpoint.Small);
        CliResult refused = new CliCommand("quantize", other, "--to", "gguf:Q4_0", "--method", "gptq", "--statistics", parts[0], "--out", _folder.File("x.gguf")).Run().Expect(3);
        Assert.Contains("NU-91", refused.Error, StringComparison.Ordinal);
    }

    [SharedFact]
    public void ExpertsWithFewTokensAreRoundedAndNamed()
    {
        string model = SharedData.Path("models/tiny-qwen2moe"), output = _folder.File("m.gguf");
        string[] arguments = ["quantize", model, "--to", "gguf:Q4_0", "--method", "gptq", "--samples", "1", "--context", "12", "--out", output, "--force"];
        JsonElement report = CliCommand.Succeed([.. arguments, "--json"]).Json();
        Assert.Contains(report.GetProperty("events").EnumerateArray(), found => found.GetProperty("code").GetString() == "experts-few-tokens");
        Assert.Contains(report.GetProperty("tensors").EnumerateArray(), tensor => tensor.TryGetProperty("gptq", out JsonElement gptq) && gptq.GetProperty("rounded_parts").GetInt32() > 0);
        CliResult strict = new CliCommand([.. arguments, "--strict"]).Run().Expect(5);
        Assert.Contains("NU-92", strict.Error, StringComparison.Ordinal);

        JsonElement all = CliCommand.Succeed([.. arguments, "--all-experts", "--json"]).Json();
        foreach (JsonElement tensor in all.GetProperty("tensors").EnumerateArray().Where(tensor => tensor.TryGetProperty("gptq", out _)))
        {
            Assert.Equal((12, 0), (tensor.GetProperty("tokens_seen").GetInt64(), tensor.GetProperty("gptq").GetProperty("rounded_parts").GetInt32()));
        }
    }

    [Theory]
    [InlineData("gguf:Q4_0", "--damping", "0.5")]
    [InlineData("gguf:Q4_0", "--method", "gptq", "--damping", "2")]
    [InlineData("gguf:Q4_0", "--method", "gptq", "--effort", "reference")]
    [InlineData("gguf:Q4_0", "--method", "gptq", "--statistics", "x", "--calibration", "builtin:text")]
    [InlineData("gptq:w5g128")]
    [InlineData("gptq:w4g128", "--pure")]
    [InlineData("gptq:w4g128-actorder", "--method", "rtn")]
    public void WrongUsesAreRefused(string scheme, params string[] options)
    {
        string output = _folder.File("out");
        CliResult result = new CliCommand(["quantize", Models.Tiny, "--to", scheme, "--out", output, .. options]).Run().Expect(2);
        Assert.StartsWith("error: ", result.Error, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(_folder.Path));
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int processId, int signal);
}
