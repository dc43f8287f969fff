using System.Text.Json;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>A run that ends early, at whatever call to the disk, is taken up by an equal one, which ends as if nothing had been.</summary>
public sealed class ResumeTests(ITestOutputHelper output) : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void AFile() => Check("out.gguf", (target, context) => Quantize(Source(), target, "Q8_0", context), stride: 2);

    [Fact]
    public void AFolderWithScatteredRows() => Check("out", (target, context) => Conversions.ToGptq(Source(), target, "w4g32", context, new ConversionOptions("gptq:w4g32", Resume: true)), stride: 3);

    [Fact]
    public void PartsSideBySide()
    {
        Conversions.ToGguf(Source(), _folder.File("whole.gguf"));
        SplitFiles.Cut(_folder.File("whole.gguf"), "source", 4, 8);
        Check("out.gguf", (target, context) => Conversions.Quantize(
            _folder.File("source-00002-of-00003.gguf"), target, "Q8_0", context, new ConversionOptions("gguf:Q8_0", Resume: true), new QuantizationOptions { KeepSplit = true }), stride: 3);
    }

    [Fact]
    public void LayersAndStatistics()
    {
        QuantizationChoices choices = new() { Method = "gptq", Calibration = "builtin:text", Samples = 2, Context = 32, Effort = "fast" };
        Check("solved.gguf", (target, context) => Request("gguf:Q4_0", target, choices, context), stride: 7);
        Check("weighed.gguf", (target, context) => Request("gguf:IQ2_XS", target, choices with { Method = null, Effort = null }, context), stride: 7);
        Check("scaled", (target, context) => Request("compressed-tensors:FP8", target, choices with { Method = null, Effort = null }, context), stride: 37);
    }

    /// <summary>After a power cut records may be there whose bytes are not.</summary>
    [Fact]
    public void LostBytesAreWrittenAgain()
    {
        string target = _folder.File("out.gguf"), partial = _folder.File(".out.gguf.partial");
        Quantize("builtin:tiny", _folder.File("whole.gguf"), "Q8_0", new RunContext());
        byte[] whole = File.ReadAllBytes(_folder.File("whole.gguf"));
        StopBeforePublishing(target);
        using (FileStream file = File.OpenWrite(partial))
        {
            file.Position = whole.Length / 2;
            file.Write(new byte[whole.Length / 2]);
        }

        RunContext context = new();
        Quantize("builtin:tiny", target, "Q8_0", context);
        Assert.Contains(context.Events.Events, found => found.Code == "rewritten");
        Assert.Equal(whole, File.ReadAllBytes(target));

        // A header that was lost with them makes the rest worthless.
        File.Delete(target);
        StopBeforePublishing(target);
        File.WriteAllBytes(partial, new byte[10]);
        Quantize("builtin:tiny", target, "Q8_0", new RunContext());
        Assert.Equal(whole, File.ReadAllBytes(target));
        Assert.Equal(["out.gguf", "out.gguf.qwen2quant.json", "whole.gguf", "whole.gguf.qwen2quant.json"], Names());
    }

    [Fact]
    public void AFinishedOutputIsLeftAlone()
    {
        string target = _folder.File("out.gguf");
        ConversionReport first = Quantize("builtin:tiny", target, "Q8_0", new RunContext());
        DateTime written = File.GetLastWriteTimeUtc(target);
        ConversionReport second = Quantize("builtin:tiny", target, "Q8_0", new RunContext());
        Assert.Contains(second.Events, found => found.Code == "already-done");
        Assert.Equal(JsonSerializer.Serialize(first.Tensors, ReportJson.Default.ConversionReport.Options), JsonSerializer.Serialize(second.Tensors, ReportJson.Default.ConversionReport.Options));
        Assert.Equal(written, File.GetLastWriteTimeUtc(target));

        Refused("method rtn instead of", () => Request("gguf:Q8_0", target, new QuantizationChoices { Method = "gptq", Samples = 2, Context = 32 }, new RunContext(), "builtin:tiny"));
        Refused("scheme gguf:Q8_0 instead of gguf:Q4_0", () => Quantize("builtin:tiny", target, "Q4_0", new RunContext()));
        Refused("effort normal instead of fast", () => Conversions.Quantize("builtin:tiny", target, "Q8_0", options: new ConversionOptions("gguf:Q8_0", Effort: Effort.Fast, Resume: true)));
        Refused("another types", () => Request("gguf:Q8_0", target, new QuantizationChoices { TensorType = ["attn_q=Q6_K"] }, new RunContext(), "builtin:tiny"));
        Refused("other metadata or files", () => Request("gguf:Q8_0", target, new QuantizationChoices { OverrideKv = ["general.name=str:x"] }, new RunContext(), "builtin:tiny"));
        Refused("the source was another", () => Quantize(Source(), target, "Q8_0", new RunContext()));
        File.WriteAllBytes(target, File.ReadAllBytes(target)[..^1]);
        Assert.Contains("missing or have another length", Assert.Throws<QuantException>(() => Quantize("builtin:tiny", target, "Q8_0", new RunContext())).Message, StringComparison.Ordinal);
        File.Delete(target + ".qwen2quant.json");
        Refused("no report", () => Quantize("builtin:tiny", target, "Q8_0", new RunContext()));
        Conversions.Quantize("builtin:tiny", target, "Q8_0", options: new ConversionOptions("gguf:Q8_0", Force: true, Resume: true));
        Assert.Contains(Quantize("builtin:tiny", target, "Q8_0", new RunContext()).Events, found => found.Code == "already-done");
    }

    /// <summary>A report stands beside its output before that has the name: until then what has the name is another output.</summary>
    [Fact]
    public void AReplacementThatWasNotFinishedIsNotTakenForDone()
    {
        string target = _folder.File("out.gguf");
        Conversions.Quantize("builtin:tiny", target, "Q4_K_M", options: new ConversionOptions("gguf:Q4_K_M", Effort: Effort.Fast));
        byte[] fast = File.ReadAllBytes(target);
        ConversionOptions normal = new("gguf:Q4_K_M", Force: true, Resume: true);
        Assert.Throws<QuantException>(() => Conversions.Quantize("builtin:tiny", target, "Q4_K_M", new RunContext { Files = new FaultyFileLayer(DiskFileLayer.Instance, LastRename("Q4_K_M"), Fault.NoSpace), Threads = 1 }, normal));
        Assert.Equal(fast, File.ReadAllBytes(target));
        ConversionReport report = Conversions.Quantize("builtin:tiny", target, "Q4_K_M", options: normal);
        Assert.DoesNotContain(report.Events, found => found.Code == "already-done");
        Assert.NotEqual(fast, File.ReadAllBytes(target));
    }

    [Fact]
    public void OtherSettingsAreRefusedAndBeginAnewWithoutResume()
    {
        string target = _folder.File("out.gguf");
        StopBeforePublishing(target);
        Assert.Contains("scheme gguf:Q8_0 instead of gguf:Q4_0", Assert.Throws<QuantException>(() => Quantize("builtin:tiny", target, "Q4_0", new RunContext())).Message, StringComparison.Ordinal);
        RunContext context = new();
        Conversions.Quantize("builtin:tiny", target, "Q4_0", context);
        Assert.Contains(context.Events.Events, found => found.Code == "restarted");
        Assert.Equal(["out.gguf", "out.gguf.qwen2quant.json"], Names());
    }

    [Fact]
    public void SharesOfOneOutputAddUp()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small), gram = _folder.File("gram.safetensors");
        new GramCalibration(gram, []).Run(Checkpoint.Open(model, new RunContext()), EvaluationText.Load(DiskFileLayer.Instance, "builtin:text", Stream.Null), new CalibrationOptions { Samples = 2, Context = 32 }, new RunContext());
        foreach ((string scheme, string name, QuantizationChoices choices) in new (string, string, QuantizationChoices)[]
        {
            ("gguf:Q8_0", "a.gguf", new()), ("mlx:w4g32", "b", new() { Method = "rtn" }), ("gguf:Q4_0", "c.gguf", new() { Method = "gptq", Statistics = gram, Effort = "fast" }),
        })
        {
            string whole = _folder.File("whole/" + name), target = _folder.File("shared/" + name);
            foreach (string path in (string[])[whole, target]) Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            Request(scheme, whole, choices, new RunContext(), model);
            // The third of four is missing: whoever brings them together does it.
            foreach (int share in (int[])[3, 0, 1])
            {
                using QuantizationRequest part = QuantizationRequest.Open(model, scheme, target, choices, new OutputHandling(Resume: true), new RunContext(), Stream.Null);
                part.Conversion.RunShare(new Share(share, 4));
            }

            Assert.False(File.Exists(target) || Directory.Exists(target));
            RunContext context = new();
            Request(scheme, target, choices, context, model);
            if (!name.StartsWith('c')) Assert.Contains(context.Events.Events, found => found.Code == "resumed");
            AssertSame(Contents(whole), Contents(target), scheme);
        }
    }

    [Fact]
    public void PartsOfSharesAreReadAsPeopleWriteThem()
    {
        Assert.Equal(new Share(1, 4), Share.Parse("2/4", "--partition"));
        foreach (string wrong in (string[])["0/4", "5/4", "2", "a/b", "-1/4", "2/4/6"]) Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Share.Parse(wrong, "--partition")).Kind);
    }

    private void Check(string name, Action<string, RunContext> run, int stride = 1)
    {
        string reference = _folder.File("reference-" + name + "/" + name);
        Directory.CreateDirectory(Path.GetDirectoryName(reference)!);
        FaultyFileLayer counted = new(DiskFileLayer.Instance, int.MaxValue, Fault.NoSpace);
        run(reference, new RunContext { Threads = 1, Files = counted });
        Dictionary<string, byte[]> expected = Contents(reference);
        int stopped = 0, resumed = 0;
        for (int call = 0; call < counted.Calls; call += stride)
        {
            string work = _folder.File("work"), target = Path.Combine(work, name);
            Directory.CreateDirectory(work);
            FaultyFileLayer files = new(DiskFileLayer.Instance, call, Fault.NoSpace);
            Exception? failure = Record.Exception(() => run(target, new RunContext { Files = files, Threads = 1 }));
            string where = $"{name}: call {call} ({files.Log.ElementAtOrDefault(call)})";
            Assert.True(failure is null or QuantException, $"{where}: {failure}");
            if (failure is not null) stopped++;
            RunContext context = new();
            Exception? again = Record.Exception(() => run(target, context));
            Assert.True(again is null, $"{where}: {again}");
            if (context.Events.Events.Any(found => found.Code == "resumed")) resumed++;
            AssertSame(expected, Contents(target), where);
            Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(work), path => Path.GetFileName(path).StartsWith('.'));
            Directory.Delete(work, recursive: true);
        }

        output.WriteLine($"{name}: {counted.Calls} calls, {stopped} runs stopped, {resumed} of them taken up behind written slabs");
        Assert.True(stopped > 5, $"{name}: {stopped} stopped");
    }

    private string Source()
    {
        string path = _folder.File("model");
        return Directory.Exists(path) ? path : TestCheckpoint.Write(path, TestCheckpoint.Small with { NumHiddenLayers = 1 });
    }

    private static ConversionReport Quantize(string model, string target, string recipe, RunContext context) => Conversions.Quantize(model, target, recipe, context, new ConversionOptions("gguf:" + recipe, Resume: true));

    private ConversionReport Request(string scheme, string target, QuantizationChoices choices, RunContext context, string? model = null)
    {
        using QuantizationRequest request = QuantizationRequest.Open(model ?? Source(), scheme, target, choices, new OutputHandling(Resume: true), context, Stream.Null);
        return request.Run();
    }

    /// <summary>Leaves a run that had written everything and published nothing.</summary>
    private static void StopBeforePublishing(string target)
    {
        FaultyFileLayer files = new(DiskFileLayer.Instance, LastRename("Q8_0"), Fault.NoSpace);
        Assert.Throws<QuantException>(() => Quantize("builtin:tiny", target, "Q8_0", new RunContext { Files = files, Threads = 1 }));
        Assert.False(File.Exists(target));
    }

    /// <summary>The number of the call that gives the output its name.</summary>
    private static int LastRename(string recipe)
    {
        using TempFolder folder = new();
        FaultyFileLayer files = new(DiskFileLayer.Instance, int.MaxValue, Fault.NoSpace);
        Conversions.Quantize("builtin:tiny", folder.File("out.gguf"), recipe, new RunContext { Files = files, Threads = 1 }, new ConversionOptions("gguf:" + recipe, Force: true, Resume: true));
        return files.Log.FindLastIndex(call => call.EndsWith("rename out.gguf", StringComparison.Ordinal));
    }

    private static void Refused(string found, Action run)
    {
        QuantException error = Assert.Throws<QuantException>(run);
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.Contains(found, error.Message, StringComparison.Ordinal);
    }

    private string[] Names() => [.. Directory.GetFileSystemEntries(_folder.Path).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    /// <summary>The files of an output, but for the report, which holds times.</summary>
    private static Dictionary<string, byte[]> Contents(string path)
    {
        string folder = Directory.Exists(path) ? path : Path.GetDirectoryName(path)!;
        return Directory.GetFiles(folder).Where(file => !file.EndsWith("qwen2quant.json", StringComparison.Ordinal)).ToDictionary(file => Path.GetFileName(file), File.ReadAllBytes);
    }

    private static void AssertSame(Dictionary<string, byte[]> expected, Dictionary<string, byte[]> found, string where)
    {
        Assert.True(expected.Keys.Order().SequenceEqual(found.Keys.Order()), $"{where}: {string.Join(", ", found.Keys)}");
        foreach ((string name, byte[] bytes) in expected) Assert.True(bytes.AsSpan().SequenceEqual(found[name]), $"{where}: {name} differs");
    }
}
