using System.Text;
using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Batch;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Rules;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Batches: what is refused when they are planned, what workers do, and what becomes of a manifest that somebody changed.</summary>
public sealed class BatchTests : IDisposable
{
    private const string Jobs = """
        {
          "models": ["builtin:tiny"], "validate": { "text": "builtin:text", "context": 64, "chunks": 2 },
          "jobs": [
            { "schemes": ["gguf:Q4_0"], "calibration": { "text": "builtin:calibration", "samples": 6, "context": 64, "partitions": 3 } },
            { "schemes": ["gguf:Q4_0"], "name": "solved", "options": { "method": "gptq", "effort": "fast" }, "encode_parts": 2,
              "calibration": { "text": "builtin:calibration", "samples": 6, "context": 64, "partitions": 2, "schedule": "parallel" } },
            { "schemes": ["mlx:w4g64"], "name": "{scheme}_{method}_{effort}", "fail_above": { "mean_kld": 0.0001 }, "encode_parts": 2 }
          ]
        }
        """;

    private readonly TempFolder _folder = new();
    private readonly List<string> _log = [];
    private int _names;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void EveryItemIsMadeAndTheRestIsKeptAside()
    {
        BatchManifest manifest = Plan(Jobs, "out");
        Assert.Equal(["tiny-qwen2-Q4_0", "solved", "mlx-w4g64_default_normal"], manifest.Items.Select(item => item.Name));
        Assert.Equal(3 + 1 + 2 + 2 + 1 + 2 + 1 + 1 + 2 + 1 + 1, manifest.Tasks.Count);
        Assert.All(manifest.Items, item => Assert.Matches("^[0-9a-f]{16}$", item.Id));
        BatchStatus status = Work("out");
        Assert.Equal(["done", "done", "rejected"], status.Items.Select(item => item.State));
        Assert.Equal("mlx-w4g64_default_normal.rejected", Assert.Single(Directory.GetDirectories(Out(), "mlx*").Select(Path.GetFileName)));
        Assert.Contains("is above 0.0001", status.Items[2].Message, StringComparison.Ordinal);
        Assert.Equal(["solved.gguf", "solved.gguf.qwen2quant.json", "tiny-qwen2-Q4_0.gguf", "tiny-qwen2-Q4_0.gguf.qwen2quant.json"], Directory.GetFiles(Out()).Select(path => Path.GetFileName(path)!).Where(name => name != "manifest.json").Order(StringComparer.Ordinal));
        ConversionReport report = System.Text.Json.JsonSerializer.Deserialize(File.ReadAllBytes(Out("solved.gguf.qwen2quant.json")), ReportJson.Default.ConversionReport)!;
        Assert.Equal(("solved.gguf", "parallel"), (report.Output, report.Gptq!.Schedule));
        Assert.NotNull(report.Validation);
        Assert.Empty(Directory.GetFileSystemEntries(Out("work/built")));
        Assert.Empty(Directory.GetFileSystemEntries(Out("work/leases")));

        // Nothing is left to do, and planning the same again changes nothing.
        _log.Clear();
        Assert.Equal(2, Work("out").Done);
        Assert.Empty(_log);
        Assert.Equal(manifest.Items.Select(item => item.Id), Plan(Jobs, "out").Items.Select(item => item.Id));
        BatchResults results = BatchResults.Merge(manifest, Out(), DiskFileLayer.Instance, CancellationToken.None);
        Assert.Equal((2, 1, 0, 0), (results.Done, results.Rejected, results.Missing.Count, results.Damaged.Count));
    }

    /// <summary>Three workers, each for one item, several tasks at once, or one for all: the same bytes.</summary>
    [Fact]
    public void TheBytesDoNotDependOnWhoDoesWhat()
    {
        Plan(Jobs, "out");
        Plan(Jobs, "many");
        Plan(Jobs, "slots");
        Work("out");
        foreach (int index in (int[])[2, 1, 0]) Work("many", new BatchWorkOptions(index));
        Work("slots", new BatchWorkOptions(Slots: 3));
        Assert.Equal(Outputs("out"), Outputs("many"));
        Assert.Equal(Outputs("out"), Outputs("slots"));
        string[] statistics = [.. Directory.GetFiles(Out("work/statistics")).Select(path => Path.GetFileName(path))];
        Assert.Equal(3 + 1 + 2 + 1, statistics.Length);
        Assert.All(statistics, name => Assert.Equal(File.ReadAllBytes(Out("work/statistics/" + name)), File.ReadAllBytes(_folder.File(Path.Combine("many", "work", "statistics", name)))));
    }

    /// <summary>Tasks run side by side as far as memory goes.</summary>
    [Theory]
    [InlineData(1_000_000_000_000, 3, 3)]
    [InlineData(1_000_000_000_000, 1, 1)]
    [InlineData(1_000_000, 3, 1)]
    public void MemoryBoundsTheTasksAtOnce(long memoryBytes, int slots, int most)
    {
        BatchManifest manifest = Plan("""{ "models": ["builtin:tiny"], "schemes": ["gguf:Q8_0", "gguf:Q6_K", "gguf:Q5_0", "gguf:Q4_0", "gguf:Q4_K_M", "gguf:IQ3_S"] }""", "out");
        FaultyFileLayer files = new(DiskFileLayer.Instance, int.MaxValue, Fault.NoSpace);
        Assert.Equal(6, Work("out", new BatchWorkOptions(Slots: slots), new RunContext { Files = files, MemoryBytes = memoryBytes }).Done);
        HashSet<string> tasks = [.. manifest.Tasks.Select(task => task.Id)];
        int held = 0, peak = 0;
        foreach (string[] call in files.Log.Select(call => call.Split(' ')).Where(call => tasks.Contains(call[^1])))
        {
            held += call[1] switch { "create" => 1, "delete" => -1, _ => 0 };
            peak = Math.Max(peak, held);
        }

        Assert.Equal((0, most), (held, peak));
    }

    [Fact]
    public void WhatIsDamagedIsMadeAgain()
    {
        BatchManifest manifest = Plan(Jobs, "out");
        Work("out");
        Dictionary<string, string> before = Outputs("out");
        // An output without its bytes, a receipt cut off, statistics that changed, an output that is gone.
        Flip(Out("solved.gguf"));
        Assert.Equal(["solved"], BatchResults.Merge(manifest, Out(), DiskFileLayer.Instance, CancellationToken.None).Damaged);
        File.Delete(Out("tiny-qwen2-Q4_0.gguf"));
        Flip(Directory.GetFiles(Out("work/statistics"), "*.imatrix.gguf")[0]);
        string sum = Directory.GetFiles(Out("work/receipts"), "*-sum.json")[0];
        File.WriteAllText(sum, File.ReadAllText(sum)[..20]);
        Flip(Directory.GetFiles(Out("work/statistics"), "*.part-001*")[0]);
        Assert.Equal(2, Work("out").Done);
        Assert.Equal(before, Outputs("out"));
        Assert.Empty(BatchResults.Merge(manifest, Out(), DiskFileLayer.Instance, CancellationToken.None).Damaged);
    }

    /// <summary>Every call to the disk of a worker fails once; the next worker ends it.</summary>
    [Fact]
    public void AWorkerMayStopAnywhere()
    {
        const string jobs = """{ "models": ["builtin:tiny"], "schemes": ["gguf:Q8_0"], "validate": { "context": 64, "chunks": 2 }, "fail_above": { "mean_kld": 0.1 } }""";
        Plan(jobs, "out");
        Work("out");
        Dictionary<string, string> expected = Outputs("out");
        int stopped = 0;
        for (int call = 0; ; call += 3)
        {
            string name = $"try{call}";
            Plan(jobs, name);
            FaultyFileLayer files = new(DiskFileLayer.Instance, call, Fault.NoSpace);
            Exception? failure = Record.Exception(() => Work(name, context: new RunContext { Files = files, Threads = 1 }));
            Assert.True(failure is null or QuantException, $"call {call} ({files.Log.ElementAtOrDefault(call)}): {failure}");
            if (failure is not null) stopped++;
            if (failure is not null) Assert.Equal(1, Work(name).Done);
            Assert.True(expected.OrderBy(pair => pair.Key).SequenceEqual(Outputs(name).OrderBy(pair => pair.Key)), $"call {call} ({files.Log.ElementAtOrDefault(call)}): {string.Join(", ", Outputs(name).Keys)}");
            Directory.Delete(_folder.File(name), recursive: true);
            if (!files.Struck) break;
        }

        Assert.True(stopped > 20, $"{stopped}");
    }

    [Fact]
    public void AFailedTaskIsTriedAgainWhenAsked()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small with { NumHiddenLayers = 1 }, edit: (name, values) =>
        {
            if (name.EndsWith("down_proj.weight", StringComparison.Ordinal)) values[3] = float.NaN;
        });
        Plan($$"""{ "models": ["{{model.Replace('\\', '/')}}", "builtin:tiny"], "schemes": ["gguf:Q8_0"] }""", "out");
        BatchStatus status = Work("out");
        Assert.Equal(["failed", "done"], status.Items.Select(item => item.State));
        Assert.Contains("NU-79", status.Items[0].Message, StringComparison.Ordinal);
        _log.Clear();
        Work("out");
        Assert.Empty(_log);
        Work("out", new BatchWorkOptions(Retry: true));
        Assert.Contains("failed", Assert.Single(_log), StringComparison.Ordinal);
    }

    [Fact]
    public void ASourceThatChangedIsRefused()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small with { NumHiddenLayers = 1 });
        BatchManifest manifest = Plan($$"""{ "models": ["{{model.Replace('\\', '/')}}"], "schemes": ["gguf:Q8_0"] }""", "out");
        TestCheckpoint.Write(_folder.File("other"), TestCheckpoint.Small with { NumHiddenLayers = 1 }, seed: 2);
        File.Copy(_folder.File("other/model.safetensors"), Path.Combine(model, "model.safetensors"), overwrite: true);
        Assert.Contains("the source was another, or has changed", Work("out").Items[0].Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Out(manifest.Items[0].Output)));
    }

    [Fact]
    public void EverythingWrongIsSaidAtOnce()
    {
        BatchPlanner planner = Planner("""{ "models": ["builtin:tiny", "nowhere/nothing"], "schemes": ["gguf:Q4_0", "gguf:Q9", "gguf:IQ1_S", "gptq:w4g512"] }""", "out");
        Assert.Null(planner.Plan());
        Assert.Equal(3 + 4, planner.Problems.Count);
        Assert.Contains(planner.Problems, problem => problem.Message.Contains("importance matrix", StringComparison.Ordinal));
        Assert.False(Directory.Exists(Out()));

        planner = Planner("""{ "models": ["builtin:tiny"], "schemes": ["gguf:Q4_0"], "jobs": [{}, { "options": { "effort": "fast" } }] }""", "out");
        Assert.Null(planner.Plan());
        Assert.Contains("2 items have one output", planner.Problems[0].Message, StringComparison.Ordinal);

        Directory.CreateDirectory(Out());
        File.WriteAllText(Out("tiny-qwen2-Q4_0.gguf"), "mine");
        const string one = """{ "models": ["builtin:tiny"], "schemes": ["gguf:Q4_0"] }""";
        planner = Planner(one, "out");
        Assert.Null(planner.Plan());
        Assert.Contains("the output exists", planner.Problems[0].Message, StringComparison.Ordinal);
        BatchManifest forced = new BatchPlanner(JobsFile(one), Out(), force: true, new RunContext()).Plan()!;
        forced.Publish(DiskFileLayer.Instance, Out(), force: false);
        Assert.Equal(1, Work("out").Done);
        Assert.NotEqual("mine", File.ReadAllText(Out("tiny-qwen2-Q4_0.gguf")));

        BatchManifest other = Planner("""{ "models": ["builtin:tiny"], "schemes": ["gguf:Q5_0"] }""", "out").Plan()!;
        Assert.Contains("another manifest", Assert.Throws<QuantException>(() => other.Publish(DiskFileLayer.Instance, Out(), force: false)).Message, StringComparison.Ordinal);
        QuantException few = Assert.Single(Failed("""{ "models": ["builtin:tiny"], "schemes": ["gguf:Q4_0"], "calibration": { "samples": 2, "context": 64, "partitions": 3 } }"""));
        Assert.Contains("fewer windows than parts", few.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void GlobsNameFoldersAndFiles()
    {
        foreach (string name in (string[])["a-1", "a-2", "b-1"]) TestCheckpoint.Write(_folder.File("models/" + name), TestCheckpoint.Small with { NumHiddenLayers = 1 });
        Conversions.ToGguf(_folder.File("models/b-1"), _folder.File("models/a-3.gguf"));
        Directory.CreateDirectory(_folder.File("models/a-empty"));
        BatchManifest manifest = Planner("""{ "models": ["models/a-*"], "schemes": ["gguf:Q8_0"] }""", "out").Plan()!;
        Assert.Equal(["a-1-Q8_0", "a-2-Q8_0", "a-3-Q8_0"], manifest.Items.Select(item => item.Name));
        QuantException none = Assert.Throws<QuantException>(() => Planner("""{ "models": ["models/c*"], "schemes": ["gguf:Q8_0"] }""", "out").Plan());
        Assert.Contains("no model has such a name", none.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void EveryRuleHasItsCases()
    {
        List<RuleCase> cases = [.. Cases()];
        RuleCase.CheckCoverage(cases, BatchRules.All, []);
        foreach (RuleCase item in cases) item.Check();
    }

    private IEnumerable<RuleCase> Cases()
    {
        string good = """ "models": ["builtin:tiny"], "schemes": ["gguf:Q8_0"] """;
        foreach ((string name, string json) in new (string, string)[]
        {
            ("no JSON", "{"), ("an array", "[]"), ("an unknown key", $$"""{ {{good}}, "modles": [] }"""), ("an unknown key of a job", $$"""{ {{good}}, "jobs": [{ "x": 1 }] }"""), ("a key twice", $$"""{ {{good}}, "models": ["builtin:tiny"] }"""),
            ("an unknown option", $$"""{ {{good}}, "options": { "methd": "gptq" } }"""), ("an option of another kind", $$"""{ {{good}}, "options": { "damping": "much" } }"""), ("an option of the batch", $$"""{ {{good}}, "options": { "samples": 3 } }"""),
            ("no models", """{ "schemes": ["gguf:Q8_0"] }"""), ("no schemes", """{ "models": ["builtin:tiny"], "schemes": [] }"""), ("no jobs", $$"""{ {{good}}, "jobs": [] }"""), ("jobs within jobs", $$"""{ {{good}}, "jobs": [{ "jobs": [{}] }] }"""),
            ("parts without end", $$"""{ {{good}}, "encode_parts": 100000 }"""), ("an unknown schedule", $$"""{ {{good}}, "calibration": { "schedule": "soon" } }"""), ("an unknown key of a calibration", $$"""{ {{good}}, "calibration": { "sample": 1 } }"""), ("nesting", new string('[', 100_000)),
        })
        {
            yield return new RuleCase(BatchRules.WellFormed, name, ErrorKind.Usage, () => Planner(json, "out").Plan()!);
        }

        yield return new RuleCase(BatchRules.WellFormed, "jobs", null, () => Planner($$"""{ {{good}} }""", "out").Plan()!);
        yield return new RuleCase(BatchRules.PathsInside, "a name that is a path", ErrorKind.Usage, () => throw Failed($$"""{ {{good}}, "name": "../{model}" }""")[0]);
        yield return new RuleCase(BatchRules.PathsInside, "a hidden name", ErrorKind.Usage, () => throw Failed($$"""{ {{good}}, "name": ".x" }""")[0]);
        yield return new RuleCase(BatchRules.PathsInside, "a plain name", null, () => Planner($$"""{ {{good}}, "name": "a b-{scheme}" }""", "out").Plan()!);
        foreach ((string name, Rule rule, Action<JsonNode> edit) in new (string, Rule, Action<JsonNode>)[]
        {
            ("an output outside", BatchRules.PathsInside, manifest => manifest["items"]![0]!["output"] = "../x.gguf"),
            ("an absolute output", BatchRules.PathsInside, manifest => manifest["items"]![0]!["output"] = "/tmp/x.gguf"),
            ("the work folder", BatchRules.PathsInside, manifest => manifest["items"]![0]!["output"] = "work"),
            ("statistics outside", BatchRules.PathsInside, manifest => manifest["statistics"]![0]!["path"] = "../../x"),
            ("a task with a path", BatchRules.WellFormed, manifest => manifest["tasks"]![0]!["id"] = "../x"),
            ("a need that is not there", BatchRules.WellFormed, manifest => manifest["tasks"]![3]!["needs"]![0] = "x"),
            ("an item that is not there", BatchRules.WellFormed, manifest => manifest["tasks"]!.AsArray()[^1]!["item"] = 99),
            ("one output twice", BatchRules.WellFormed, manifest => manifest["items"]![1]!["output"] = manifest["items"]![0]!["output"]!.GetValue<string>()),
            ("a task of an item that is not there", BatchRules.WellFormed, manifest => manifest["items"]![0]!["tasks"]!.AsArray().Add("x")),
            ("no items", BatchRules.WellFormed, manifest => manifest.AsObject().Remove("items")),
            ("an unknown key", BatchRules.WellFormed, manifest => manifest["run"] = "rm"),
        })
        {
            yield return new RuleCase(rule, "of a manifest: " + name, ErrorKind.InvalidInput, () => Edited(edit));
        }

        yield return new RuleCase(BatchRules.SameWork, "another version's", ErrorKind.Usage, () => Edited(manifest => manifest["version"] = "0.0.1"));
        yield return new RuleCase(BatchRules.SameWork, "a manifest as it was planned", null, () => Edited(_ => { }));
        yield return new RuleCase(BatchRules.SameWork, "other options than were planned", ErrorKind.InvalidInput, () =>
        {
            BatchManifest manifest = Edited(plan => plan["items"]![2]!["options"]!["effort"] = "fast");
            BatchStatus status = new BatchWorker(manifest, _folder.File($"plan{_names}"), new BatchWorkOptions(2), new RunContext(), _log.Add).Run();
            Assert.Contains("another options", status.Items[2].Message, StringComparison.Ordinal);
            throw new QuantException(ErrorKind.InvalidInput, status.Items[2].Message!) { Rule = BatchRules.SameWork };
        });
    }

    private BatchManifest Edited(Action<JsonNode> edit)
    {
        string folder = $"plan{++_names}";
        Plan(Jobs, folder);
        string path = _folder.File(folder + "/manifest.json");
        JsonNode manifest = JsonNode.Parse(File.ReadAllText(path))!;
        edit(manifest);
        File.WriteAllText(path, manifest.ToJsonString());
        return BatchManifest.Read(DiskFileLayer.Instance, path, out _);
    }

    private string JobsFile(string json)
    {
        string path = _folder.File("jobs.json");
        File.WriteAllText(path, json, new UTF8Encoding(false));
        return path;
    }

    private BatchPlanner Planner(string json, string folder) => new(JobsFile(json), _folder.File(folder), force: false, new RunContext());

    private IReadOnlyList<QuantException> Failed(string json)
    {
        BatchPlanner planner = Planner(json, "failed");
        Assert.Null(planner.Plan());
        return planner.Problems;
    }

    private BatchManifest Plan(string json, string folder)
    {
        BatchPlanner planner = Planner(json, folder);
        BatchManifest? manifest = planner.Plan();
        Assert.True(manifest is not null, string.Join('\n', planner.Problems.Select(problem => problem.Message)));
        manifest.Publish(DiskFileLayer.Instance, _folder.File(folder), force: false);
        return manifest;
    }

    private BatchStatus Work(string folder, BatchWorkOptions? options = null, RunContext? context = null)
    {
        BatchManifest manifest = BatchManifest.Read(DiskFileLayer.Instance, _folder.File(folder), out string root);
        return new BatchWorker(manifest, root, options ?? new BatchWorkOptions(), context ?? new RunContext(), line =>
        {
            lock (_log) _log.Add(line);
        }).Run();
    }

    private string Out(string name = "") => _folder.File(Path.Combine("out", name));

    /// <summary>The outputs of a batch by name, as text that compares; reports hold times.</summary>
    private Dictionary<string, string> Outputs(string folder)
    {
        string root = _folder.File(folder);
        return Directory.GetFiles(root, "*", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(root, path))
            .Where(path => !path.StartsWith("work", StringComparison.Ordinal) && !path.EndsWith(".json", StringComparison.Ordinal))
            .ToDictionary(path => path, path => Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(Path.Combine(root, path)))));
    }

    private static void Flip(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        bytes[^20] ^= 1;
        File.WriteAllBytes(path, bytes);
    }
}
