using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>A conversion that is stopped, politely or not, leaves nothing under the final name that is not whole.</summary>
public sealed partial class InterruptionTests(LargeModel model, ITestOutputHelper print) : IClassFixture<LargeModel>, IDisposable
{
    private const int Interrupt = 2, Terminate = 15;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [UnixTheory]
    [InlineData(Interrupt)]
    [InlineData(Terminate)]
    public void ASignalStopsItAndResumeGoesOn(int signal)
    {
        if (Signals.IsIgnoredHere(signal))
        {
            print.WriteLine($"signal {signal} is ignored here, as in a background job without job control, and programs inherit that: not tested");
            return;
        }

        string output = _folder.File("m.gguf");
        CliCommand command = Quantize(output);
        using Process process = command.Start();
        Task<string> text = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        string slabs = _folder.File(".m.gguf.work/slabs-0");
        while (!process.HasExited && !(File.Exists(slabs) && new FileInfo(slabs).Length > 0)) Thread.Sleep(5);
        Assert.False(process.HasExited, "it ended before it could be stopped");
        Assert.Equal(0, Kill(process.Id, signal));
        CliResult result = command.Finish(process, text, error).Expect(128 + signal);
        Assert.Contains("interrupted", result.Error, StringComparison.Ordinal);
        Assert.Equal("", result.Output);
        Assert.Equal([".m.gguf.partial", ".m.gguf.work"], Directory.GetFileSystemEntries(_folder.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));

        JsonElement report = new CliCommand([.. command.Arguments, "--resume", "--json"]).Run().Expect(0).Json();
        Assert.Contains(report.GetProperty("events").EnumerateArray(), found => found.GetProperty("code").GetString() == "resumed");
        Assert.Equal(["m.gguf", "m.gguf.qwen2quant.json"], Directory.GetFileSystemEntries(_folder.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        CliCommand.Succeed("verify", output);
    }

    /// <summary>Twenty runs are killed at moments spread over somewhat more than the time that one takes; what they leave never hinders the next.</summary>
    [Fact]
    public void KilledRunsLeaveNothingOrTheWholeOutput()
    {
        const int runs = 20, seed = 20260131;
        string reference = _folder.File("reference.gguf"), output = _folder.File("m.gguf");
        CliCommand convert = Quantize(output, model.SmallPath, "Q5_1");
        Stopwatch watch = Stopwatch.StartNew();
        Quantize(reference, model.SmallPath, "Q5_1").Run().Expect(0);
        double milliseconds = watch.Elapsed.TotalMilliseconds, latest = 1.5 * milliseconds;
        byte[] expected = File.ReadAllBytes(reference);

        Random random = new(seed);
        int unfinished = 0, finished = 0, partial = 0;
        for (int run = 0; run < runs; run++)
        {
            using Process process = convert.Start();
            _ = process.StandardOutput.ReadToEndAsync();
            _ = process.StandardError.ReadToEndAsync();
            process.WaitForExit((int)(latest * (run + random.NextDouble()) / runs));
            process.Kill();
            process.WaitForExit();
            if (Directory.GetFiles(_folder.Path, ".m.gguf.partial").Length > 0) partial++;
            if (!File.Exists(output))
            {
                unfinished++;
                continue;
            }

            finished++;
            Assert.True(File.ReadAllBytes(output).AsSpan().SequenceEqual(expected), $"run {run} left an output that is not whole");
            File.Delete(output);
        }

        print.WriteLine($"seed {seed}: {unfinished} left no output, {partial} of them a temporary file; {finished} the whole output; an undisturbed run takes {milliseconds:F0} ms");
        Assert.True(partial > 0, "no run was killed while it wrote");
        convert.Run().Expect(0);
        Assert.True(File.ReadAllBytes(output).AsSpan().SequenceEqual(expected));
        Assert.Equal([], Directory.GetFileSystemEntries(_folder.Path, ".*"));
    }

    /// <summary>Runs are killed and taken up until one ends: the output is that of an undisturbed run, whatever the method.</summary>
    [Theory]
    [InlineData("gguf:Q5_1", "rtn", "m.gguf")]
    [InlineData("gptq:w4g128", "awq+gptq", "m")]
    public void KilledRunsAreTakenUp(string scheme, string method, string name)
    {
        const int runs = 12, seed = 20261125;
        string[] calibration = method == "rtn" ? [] : ["--samples", "2", "--context", "64", "--effort", "fast"];
        string whole = Path.Combine(Directory.CreateDirectory(_folder.File("whole")).FullName, name), output = _folder.File(name);
        CliCommand Of(string path) => new(["quantize", model.SmallPath, "--to", scheme, "--method", method, "--out", path, "--threads", "1", "--quiet", "--resume", .. calibration]) { Environment = new Dictionary<string, string> { ["QWEN2QUANT_SIMD"] = "256" } };
        Stopwatch watch = Stopwatch.StartNew();
        Of(whole).Run().Expect(0);
        double milliseconds = watch.Elapsed.TotalMilliseconds;
        Random random = new(seed);
        int killed = 0;
        for (; killed < runs && !(File.Exists(output) || Directory.Exists(output)); killed++)
        {
            using Process process = Of(output).Start();
            _ = process.StandardOutput.ReadToEndAsync();
            _ = process.StandardError.ReadToEndAsync();
            process.WaitForExit((int)(milliseconds * (0.3 + (0.5 * random.NextDouble()))));
            process.Kill();
            process.WaitForExit();
        }

        Of(output).Run().Expect(0);
        print.WriteLine($"seed {seed}: {killed} runs of {milliseconds:F0} ms killed");
        string[] files = File.Exists(whole) ? [whole] : [.. Directory.GetFiles(whole).Where(file => !file.EndsWith("qwen2quant.json", StringComparison.Ordinal))];
        Assert.All(files, file => Assert.Equal(File.ReadAllBytes(file), File.ReadAllBytes(file.Replace(whole, output, StringComparison.Ordinal))));
        Assert.Equal([], Directory.GetFileSystemEntries(_folder.Path, ".*"));
    }

    /// <summary>States that do not fit in memory go to a file without a name: not even a killed run leaves it.</summary>
    [LinuxFact]
    public void AStoppedRunLeavesNoFileOfHiddenStates()
    {
        const int killed = 9;
        foreach (int signal in new[] { Interrupt, Terminate, killed })
        {
            if (Signals.IsIgnoredHere(signal)) continue;
            string temporary = Directory.CreateDirectory(_folder.File($"tmp{signal}")).FullName;
            CliCommand command = new("perplexity", model.LargePath, "--data", "builtin:text", "--memory", "120MB", "--threads", "1", "--quiet")
            {
                Environment = new Dictionary<string, string> { ["TMPDIR"] = temporary, ["QWEN2QUANT_SIMD"] = "scalar" },
            };
            using Process process = command.Start();
            Task<string> text = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
            while (!process.HasExited && !HasOpen(process.Id, temporary)) Thread.Sleep(5);
            Assert.False(process.HasExited, "it ended before it could be stopped: " + (process.HasExited ? error.GetAwaiter().GetResult() : ""));
            Assert.Equal(0, Kill(process.Id, signal));
            CliResult result = command.Finish(process, text, error).Expect(128 + signal);
            Assert.Equal("", result.Output);
            // Killed, the runtime leaves files of its own.
            Assert.Equal([], Directory.GetFileSystemEntries(temporary, "*.scratch"));
        }
    }

    /// <summary>True when a process has a file of a folder open whose name is gone.</summary>
    private static bool HasOpen(int processId, string folder)
    {
        return Directory.EnumerateFiles($"/proc/{processId}/fd").Any(link => Target(link) is { } target && target.StartsWith(folder, StringComparison.Ordinal) && target.EndsWith(" (deleted)", StringComparison.Ordinal));

        static string? Target(string link)
        {
            try
            {
                return File.ResolveLinkTarget(link, returnFinalTarget: false)?.FullName;
            }
            catch (IOException)
            {
                // Closed since the folder was listed.
                return null;
            }
        }
    }

    /// <summary>Two runs for one output: the second is told to try again, and the first goes on.</summary>
    [Fact]
    public void ASecondRunForTheSameOutputIsToldToWait()
    {
        string output = _folder.File("m.gguf");
        CliCommand command = Quantize(output);
        using Process first = command.Start();
        Task<string> text = first.StandardOutput.ReadToEndAsync(), error = first.StandardError.ReadToEndAsync();
        while (!first.HasExited && Directory.GetFiles(_folder.Path, ".*.partial").Length == 0) Thread.Sleep(5);
        CliResult second = Quantize(output, Models.Tiny, "Q8_0").Run().Expect(75);
        Assert.Contains("another run", second.Error, StringComparison.Ordinal);
        Assert.NotEmpty(Directory.GetFiles(_folder.Path, ".*.partial"));
        Assert.Equal(0, Kill(first.Id, Terminate));
        command.Finish(first, text, error).Expect(128 + Terminate);
    }

    private CliCommand Quantize(string output) => Quantize(output, model.LargePath, "Q6_K");

    /// <summary>A conversion with scalar kernels: the bytes are the same, and it takes long enough to be caught at work.</summary>
    private static CliCommand Quantize(string output, string source, string type) => new("quantize", source, "--to", $"gguf:{type}", "--out", output, "--threads", "1", "--quiet")
    {
        Environment = new Dictionary<string, string> { ["QWEN2QUANT_SIMD"] = "scalar" },
    };

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int processId, int signal);
}

/// <summary>Random models large enough that a conversion can be caught at work: 126 MB and 16 MB of BF16.</summary>
public sealed class LargeModel : IDisposable
{
    private readonly TempFolder _folder = new();

    public LargeModel()
    {
        LargePath = TestCheckpoint.Write(_folder.File("large"), Models.Wide(16));
        SmallPath = TestCheckpoint.Write(_folder.File("small"), Models.Wide(2));
    }

    public string LargePath { get; }

    public string SmallPath { get; }

    public void Dispose() => _folder.Dispose();
}
