using System.Diagnostics;
using System.Globalization;
using System.Runtime.Versioning;
using System.Text.Json;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>The job file of the documentation on a real cluster, nodes of which fail: a batch ends with what one calm worker makes.</summary>
[SupportedOSPlatform("linux")]
public sealed class SlurmTests(CalmBatch calm, ITestOutputHelper print) : IClassFixture<CalmBatch>
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(3);

    private static string JobFile { get; } = Path.Combine(Repository.Root, "docs", "engines", "batch.sbatch");

    /// <summary>The node of a task dies with it at work; the controller sees that by itself, and another node or the same goes on.</summary>
    [SlurmFact]
    public void ABatchOutlivesANodeThatDies()
    {
        using SlurmCluster cluster = new();
        string manifest = CalmBatch.Plan(cluster.Folder, CalmBatch.Schemes), expected = calm.Folder;
        Stopwatch watch = Stopwatch.StartNew();
        string node = SlurmCluster.Nodes[1];
        (string array, string last) = Submit(cluster, manifest);
        WaitUntilBothWork(cluster, manifest);
        Assert.True(Workers(cluster, node).Any(), "the worker ended before its node could die");
        cluster.KillNode(node);
        cluster.WaitUntil(() => cluster.NodeState(node).StartsWith("down", StringComparison.Ordinal), Patience, $"the controller does not miss {node}");
        double noticed = watch.Elapsed.TotalSeconds;
        cluster.StartNode(node);
        ExpectDone(cluster, array, last, watch, $"; a node died and was missed after {noticed:F1} s");
        ExpectSame(expected, Path.GetDirectoryName(manifest)!);
    }

    /// <summary>The signal before a time limit: the worker stops after its unit, and its task goes back into the queue by itself, alone.</summary>
    [SlurmFact]
    public void ATaskAtItsTimeLimitGoesBackIntoTheQueue()
    {
        using SlurmCluster cluster = new();
        string manifest = CalmBatch.Plan(cluster.Folder, CalmBatch.Schemes), expected = calm.Folder;
        Stopwatch watch = Stopwatch.StartNew();
        (string array, string last) = Submit(cluster, manifest);
        WaitUntilBothWork(cluster, manifest);
        SlurmJob stopped = cluster.Jobs(array).First(job => job is { Task: not null, State: "RUNNING" });
        cluster.StopScript(stopped);
        IReadOnlyList<SlurmJob> jobs = ExpectDone(cluster, array, last, watch, $"; task {stopped.Task} was told to stop");
        Assert.Equal([(stopped.Task, 1)], jobs.Where(job => job.Restarts > 0).Select(job => (job.Task, job.Restarts)));
        Assert.Contains("exit code 143: back into the queue", File.ReadAllText(cluster.File($"task-{stopped.Task}.out")), StringComparison.Ordinal);
        ExpectSame(expected, Path.GetDirectoryName(manifest)!);
    }

    /// <summary>Neither a task that was cancelled nor one whose gate failed comes back, and nothing is merged without them.</summary>
    [SlurmFact]
    public void WhatCannotSucceedDoesNotComeBack()
    {
        using SlurmCluster cluster = new();
        string manifest = CalmBatch.Plan(cluster.Folder, ["gguf:Q8_0", "gguf:Q2_K"], """ "fail_above": { "mean_kld": 0 }, """);
        (string array, string last) = Submit(cluster, manifest);
        cluster.WaitUntil(() => Workers(cluster, SlurmCluster.Nodes[1]).Any(), Patience, "a node has nothing to do");
        cluster.Cancel($"{array}_1");
        cluster.WaitUntil(() => cluster.Jobs(last).All(job => job.IsOver), Patience, "the last job waits");
        IReadOnlyList<SlurmJob> jobs = cluster.Jobs(array);
        Assert.All(jobs, job => Assert.Equal(0, job.Restarts));
        Assert.Equal(("FAILED", "4:0"), jobs.Where(job => job.Task == 0).Select(job => (job.State, job.ExitCode)).Single());
        Assert.Equal("CANCELLED", jobs.Single(job => job.Task == 1).State);
        Assert.Equal("CANCELLED", cluster.Jobs(last).Single().State);
        Assert.False(File.Exists(Path.Combine(Path.GetDirectoryName(manifest)!, "report.html")));
    }

    /// <summary>Both nodes have taken a task of the batch: at first, each its part of the statistics.</summary>
    private static void WaitUntilBothWork(SlurmCluster cluster, string manifest)
    {
        string leases = Path.Combine(Path.GetDirectoryName(manifest)!, "work", "leases");
        cluster.WaitUntil(() => SlurmCluster.Nodes.All(node => Workers(cluster, node).Any()) && Directory.Exists(leases) && Directory.GetFiles(leases).Length >= SlurmCluster.Nodes.Count, Patience, "the nodes have nothing to do");
    }

    private static IEnumerable<ProcFile> Workers(SlurmCluster cluster, string node) => cluster.Work(node, Path.GetFileName(CliCommand.Assembly));

    /// <summary>The array, with the memory that the manifest asks for, and the job that merges and reports when all of it is done.</summary>
    private static (string Array, string Last) Submit(SlurmCluster cluster, string manifest)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(manifest));
        JsonElement items = document.RootElement.GetProperty("items");
        long megabytes = 1 + (items.EnumerateArray().Max(item => item.GetProperty("memory_bytes").GetInt64()) >> 20);
        string program = cluster.File("qwen2quant");
        File.WriteAllText(program, $"#!/bin/sh\nexec \"{CliCommand.DotnetPath}\" \"{CliCommand.Assembly}\" \"$@\"\n");
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        Dictionary<string, string> environment = new() { ["MANIFEST"] = manifest, ["QWEN2QUANT"] = program };
        string array = cluster.Submit(environment, $"--array=0-{items.GetArrayLength() - 1}", string.Create(CultureInfo.InvariantCulture, $"--mem={megabytes}M"), "--output=task-%a.out", JobFile);
        return (array, cluster.Submit(environment, $"--dependency=afterok:{array}", "--kill-on-invalid-dep=yes", "--mem=1G", "--output=last.out", JobFile));
    }

    private IReadOnlyList<SlurmJob> ExpectDone(SlurmCluster cluster, string array, string last, Stopwatch watch, string remark)
    {
        cluster.WaitUntil(() => cluster.Jobs(last).Concat(cluster.Jobs(array)).All(job => job.IsOver), Patience, "the batch is not done");
        IReadOnlyList<SlurmJob> jobs = cluster.Jobs(array);
        string said = string.Join('\n', Directory.GetFiles(cluster.Folder, "*.out").Select(file => $"{Path.GetFileName(file)}: {File.ReadAllText(file)}"));
        Assert.True(jobs.Concat(cluster.Jobs(last)).All(job => job is { State: "COMPLETED", ExitCode: "0:0" }), $"{string.Join('\n', jobs.Concat(cluster.Jobs(last)))}\n{said}");
        int requeues = jobs.Sum(job => job.Restarts);
        print.WriteLine($"{jobs.Count} items, {requeues} requeues, {watch.Elapsed.TotalSeconds:F1} s{remark}");
        Assert.True(requeues >= 1, "nothing went back into the queue");
        return jobs;
    }

    private static void ExpectSame(string expected, string actual)
    {
        JsonElement status = CliCommand.Succeed("batch", "status", "--manifest", actual, "--json").Json();
        int count = CalmBatch.Schemes.Length;
        Assert.Equal((count, count), (status.GetProperty("total").GetInt32(), status.GetProperty("done").GetInt32()));
        string[] outputs = [.. Outputs(expected)];
        Assert.Equal(count, outputs.Length);
        Assert.Equal(outputs, Outputs(actual));
        foreach (string name in outputs) Assert.True(File.ReadAllBytes(Path.Combine(expected, name)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(actual, name))), $"{name} differs from the calm run's");
        Assert.True(File.Exists(Path.Combine(actual, "results.json")));
        Assert.True(File.Exists(Path.Combine(actual, "report.html")));

        static IEnumerable<string> Outputs(string folder) => Directory.GetFiles(folder, "*.gguf").Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal);
    }
}

/// <summary>The batch that a single worker does undisturbed, when it is first asked for.</summary>
public sealed class CalmBatch : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly Lazy<string> _batch;

    public CalmBatch() => _batch = new Lazy<string>(() =>
    {
        string manifest = Plan(_folder.Path, Schemes);
        CliCommand.Succeed("batch", "work", "--manifest", manifest, "--threads", "1");
        return Path.GetDirectoryName(manifest)!;
    });

    public static string[] Schemes { get; } = ["gguf:Q8_0", "gguf:Q6_K", "gguf:Q5_K_M", "gguf:Q4_K_M", "gguf:IQ4_XS", "gguf:Q3_K_M"];

    /// <summary>Where the outputs lie.</summary>
    public string Folder => _batch.Value;

    /// <summary>Plans a batch in a folder of the given one; returns the path of its manifest.</summary>
    /// <param name="members">More members of the jobs' file, with a comma behind.</param>
    public static string Plan(string parent, string[] schemes, string members = "")
    {
        string jobs = Path.Combine(parent, "jobs.json"), folder = Path.Combine(parent, "batch");
        File.WriteAllText(jobs, $$"""
            {
              "models": ["{{Models.Tiny}}"],
              "schemes": {{JsonSerializer.Serialize(schemes)}},{{members}}
              "options": { "method": "gptq" },
              "calibration": { "text": "builtin:text", "samples": 16, "context": 256, "partitions": 2, "schedule": "parallel" },
              "validate": { "text": "builtin:text", "context": 256, "chunks": 8 }
            }
            """);
        JsonElement plan = CliCommand.Succeed("batch", "plan", jobs, "--out", folder, "--threads", "1", "--json").Json();
        Assert.Equal(schemes.Length, plan.GetProperty("items").GetArrayLength());
        return Path.Combine(folder, "manifest.json");
    }

    public void Dispose() => _folder.Dispose();
}
