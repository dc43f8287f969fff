using System.Diagnostics;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Native;

/// <summary>Compiled ahead of time the program does what it does otherwise.</summary>
[Collection(NativeProgram.Collection)]
public sealed class NativeProgramTests(ITestOutputHelper print) : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [NativeFact]
    public void ItStartsAndListsTheSameTypes()
    {
        Assert.Equal(CliCommand.Succeed("types", "--json").Output, NativeProgram.Command("types", "--json").Run().Expect(0).Output);
        const int runs = 10;
        double best = double.MaxValue;
        for (int run = 0; run < runs; run++)
        {
            long start = Stopwatch.GetTimestamp();
            NativeProgram.Command("types").Run().Expect(0);
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalMilliseconds);
        }

        print.WriteLine($"types: {best:F1} ms, the best of {runs}; executable of {new FileInfo(NativeProgram.Path).Length / 1e6:F1} MB");
        Assert.InRange(best, 0, 1000);
    }

    [NativeFact]
    public void ItQuantizesToTheSameBytes()
    {
        foreach (string type in new[] { "Q4_0", "Q6_K", "Q8_0" })
        {
            string jit = _folder.File($"{type}-jit.gguf"), aot = _folder.File($"{type}-aot.gguf");
            CliCommand.Succeed("quantize", Models.Tiny, "--to", $"gguf:{type}", "--out", jit);
            NativeProgram.Command("quantize", Models.Tiny, "--to", $"gguf:{type}", "--out", aot).Run().Expect(0);
            Assert.Equal(File.ReadAllBytes(jit), File.ReadAllBytes(aot));
        }
    }

    [NativeFact]
    public void ItMeasuresConvertsGeneratesAndRefuses()
    {
        string[] measure = ["perplexity", Models.Tiny, "--data", "builtin:text", "--chunks", "1", "--json"];
        double jit = CliCommand.Succeed(measure).Json().GetProperty("perplexity").GetDouble();
        double aot = NativeProgram.Command(measure).Run().Expect(0).Json().GetProperty("perplexity").GetDouble();
        Assert.InRange(aot / jit, 1 - 1e-5, 1 + 1e-5);

        string[] generate = ["generate", Models.Tiny, "--prompt", "And the LORD", "--temperature", "0", "--max-tokens", "8"];
        Assert.Equal(CliCommand.Succeed(generate).Output, NativeProgram.Command(generate).Run().Expect(0).Output);

        string folder = _folder.File("folder");
        NativeProgram.Command("convert", Models.Tiny, "--to", "safetensors", "--type", "bf16", "--out", folder, "--json").Run().Expect(0).Json();
        CliCommand.Succeed("verify", folder);
        Assert.Contains("[GG-", NativeProgram.Command("verify", _folder.Write("bad.gguf", "no model")).Run().Expect(3).Error, StringComparison.Ordinal);
        Assert.Contains("Examples:", NativeProgram.Command("quantize", "--help").Run().Expect(0).Output, StringComparison.Ordinal);
    }
}
