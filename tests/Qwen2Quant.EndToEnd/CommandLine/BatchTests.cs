using System.Diagnostics;
using System.Text.Json;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Batches as scripts run them: keys, exit codes, and workers that are killed.</summary>
public sealed class BatchTests(ITestOutputHelper print) : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void KeysAndExitCodesAreAContract()
    {
        string jobs = Jobs("""{ "models": ["builtin:tiny"], "schemes": ["gguf:Q8_0", "gguf:Q2_K"], "validate": { "chunks": 2 }, "fail_above": { "mean_kld": 0.01 } }"""), manifest = _folder.File("out/manifest.json");
        JsonElement plan = CliCommand.Succeed("batch", "plan", jobs, "--out", _folder.File("out"), "--dry-run", "--json").Json();
        Assert.Equal(["version", "items", "statistics", "tasks"], plan.EnumerateObject().Select(property => property.Name));
        foreach (string key in (string[])["index", "id", "name", "model", "scheme", "output", "bytes", "memory_bytes", "time_class", "tasks"]) Assert.True(plan.GetProperty("items")[1].TryGetProperty(key, out _), key);
        Assert.False(Directory.Exists(_folder.File("out")));
        Assert.Contains("2 items", CliCommand.Succeed("batch", "plan", jobs, "--out", _folder.File("out")).Output, StringComparison.Ordinal);

        Assert.Equal(2, new CliCommand("batch", "work", "--manifest", manifest, "--index", "2").Run().ExitCode);
        new CliCommand("batch", "merge", "--manifest", manifest).Run().Expect(5);
        CliResult first = CliCommand.Succeed("batch", "work", "--manifest", manifest, "--index", "0", "--json");
        Assert.Contains("prove tiny-qwen2-Q8_0: done", first.Error, StringComparison.Ordinal);
        JsonElement status = CliCommand.Succeed("batch", "status", "--manifest", _folder.File("out"), "--json").Json();
        Assert.Equal((2, 1, 1), (status.GetProperty("total").GetInt32(), status.GetProperty("done").GetInt32(), status.GetProperty("waiting").GetInt32()));
        foreach (string key in (string[])["index", "id", "name", "model", "scheme", "state", "bytes", "seconds", "perplexity", "perplexity_ratio", "mean_kld", "top_token_agreement"]) Assert.True(status.GetProperty("items")[0].TryGetProperty(key, out _), key);
        CliResult work = new CliCommand("batch", "work", "--manifest", manifest).Run().Expect(4);
        Assert.Contains("rejected: mean_kld", work.Error, StringComparison.Ordinal);
        Assert.True(File.Exists(_folder.File("out/tiny-qwen2-Q2_K.rejected.gguf")));
        Assert.False(File.Exists(_folder.File("out/tiny-qwen2-Q2_K.gguf")));
        new CliCommand("batch", "merge", "--manifest", manifest).Run().Expect(4);
        Assert.Equal(1, JsonDocument.Parse(File.ReadAllBytes(_folder.File("out/results.json"))).RootElement.GetProperty("done").GetInt32());
        CliCommand.Succeed("batch", "status", "--manifest", manifest, "--watch");
        JsonElement page = CliCommand.Succeed("batch", "report", "--manifest", manifest, "--json").Json();
        Assert.Equal(_folder.File("out/report.html"), page.GetProperty("path").GetString());
        CliCommand.Succeed("verify", _folder.File("out/tiny-qwen2-Q8_0.gguf"));

        new CliCommand("batch", "plan", Jobs("""{ "models": ["builtin:tiny"], "schemes": ["gguf:Q9"] }"""), "--out", _folder.File("x")).Run().Expect(2);
        new CliCommand("batch", "work", "--manifest", _folder.File("nowhere.json")).Run().Expect(3);
        Assert.Contains("batch work --help", new CliCommand("batch", "work", "--what").Run().Expect(2).Error, StringComparison.Ordinal);
    }

    /// <summary>Two workers, one of which is killed every moment and started again: what comes out is what a calm run gives.</summary>
    [Fact]
    public void KilledWorkersLoseNothing()
    {
        const int kills = 12, seed = 20261125;
        string jobs = Jobs("""
            {
              "models": ["builtin:tiny"], "validate": { "chunks": 2, "context": 256 },
              "jobs": [
                { "schemes": ["gguf:Q8_0", "gguf:Q4_K_M", "mlx:w4g64"], "calibration": { "samples": 8, "context": 128, "partitions": 2 } },
                { "schemes": ["gguf:Q4_K_M", "gptq:w4g64"], "name": "{model}-{scheme}-gptq", "options": { "method": "gptq", "effort": "fast" }, "calibration": { "samples": 8, "context": 128 } },
                { "schemes": ["gguf:Q3_K_M"], "name": "{model}-{scheme}-parallel", "options": { "method": "gptq", "effort": "fast" }, "calibration": { "samples": 8, "context": 128, "partitions": 2, "schedule": "parallel" }, "encode_parts": 2 }
              ]
            }
            """);
        foreach (string name in (string[])["calm", "wild"]) CliCommand.Succeed("batch", "plan", jobs, "--out", _folder.File(name), "--quiet");
        Stopwatch watch = Stopwatch.StartNew();
        CliCommand.Succeed("batch", "work", "--manifest", _folder.File("calm"), "--quiet");
        TimeSpan calm = watch.Elapsed;

        watch.Restart();
        Random random = new(seed);
        Process[] workers = [Start(), Start()];
        int killed = 0;
        while (killed < kills && !workers.Any(worker => worker.HasExited))
        {
            Thread.Sleep(400 + random.Next(600));
            int victim = random.Next(workers.Length);
            if (workers[victim].HasExited) break;
            workers[victim].Kill();
            workers[victim].WaitForExit();
            workers[victim].Dispose();
            killed++;
            workers[victim] = Start();
        }

        foreach (Process worker in workers)
        {
            Assert.True(worker.WaitForExit(TimeSpan.FromMinutes(2)), "a worker hangs");
            Assert.Equal(0, worker.ExitCode);
            worker.Dispose();
        }

        print.WriteLine($"seed {seed}: {killed} workers killed; {calm.TotalSeconds:F1} s calm with one, {watch.Elapsed.TotalSeconds:F1} s with two of which one was killed now and then");
        Assert.True(killed > 2, $"{killed} killed");
        CliCommand.Succeed("batch", "merge", "--manifest", _folder.File("wild"));
        Assert.Equal(Outputs("calm"), Outputs("wild"));
        Assert.Empty(Directory.GetFileSystemEntries(_folder.File(Path.Combine("wild", "work", "built"))));
        Assert.Empty(Directory.GetFileSystemEntries(_folder.File("wild"), ".*"));

        Process Start()
        {
            Process process = new CliCommand("batch", "work", "--manifest", _folder.File("wild"), "--threads", "1", "--quiet").Start();
            _ = process.StandardOutput.ReadToEndAsync();
            _ = process.StandardError.ReadToEndAsync();
            return process;
        }
    }

    private string Jobs(string json)
    {
        string path = _folder.File("jobs.json");
        File.WriteAllText(path, json);
        return path;
    }

    /// <summary>The outputs by name, with their hashes; reports hold times.</summary>
    private SortedDictionary<string, string> Outputs(string name)
    {
        string root = _folder.File(name);
        return new(Directory.GetFiles(root, "*", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(root, path))
            .Where(path => !path.StartsWith("work", StringComparison.Ordinal) && !path.EndsWith("qwen2quant.json", StringComparison.Ordinal) && path is not ("manifest.json" or "results.json"))
            .ToDictionary(path => path, path => Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(Path.Combine(root, path))))));
    }
}
