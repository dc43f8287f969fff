using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Every call to the disk fails once, for every call of a conversion: nothing half-done may carry the final name.</summary>
public sealed class FaultTests(ITestOutputHelper output) : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.AccessDenied)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void ToGguf(Fault fault) => Check(fault, isFolder: false, (source, target, context) => Conversions.Quantize(source, target, "Q8_0", context));

    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.AccessDenied)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void ToFolder(Fault fault) => Check(fault, isFolder: true, (source, target, context) => Conversions.ToFolder(source, target, PlainTypes.F16, context: context));

    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.AccessDenied)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void ToGptq(Fault fault) => Check(fault, isFolder: true, (source, target, context) => Conversions.ToGptq(source, target, "w4g32", context));

    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void ToShards(Fault fault) => Check(fault, isFolder: true, (source, target, context) => Conversions.Copy(source, target, new ContainerLimit(60_000, null), context));

    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.ShortRead)]
    [InlineData(Fault.Truncated)]
    public void ToMergedGguf(Fault fault)
    {
        Conversions.ToGguf(TestCheckpoint.Write(_folder.File("folder"), TestCheckpoint.Small with { NumHiddenLayers = 1 }), _folder.File("whole.gguf"));
        SplitFiles.Cut(_folder.File("whole.gguf"), "parts", 4, 8);
        Check(fault, isFolder: false, (_, target, context) => Conversions.Copy(_folder.File("parts-00002-of-00003.gguf"), target, null, context));
    }

    /// <summary>Parts get their names one after the other, the first part last: no run may leave one that opens and is not whole.</summary>
    [Theory]
    [InlineData(Fault.InputOutput)]
    [InlineData(Fault.NoSpace)]
    [InlineData(Fault.AccessDenied)]
    public void ToParts(Fault fault)
    {
        Conversions.ToGguf(TestCheckpoint.Write(_folder.File("folder"), TestCheckpoint.Small with { NumHiddenLayers = 1 }), _folder.File("whole.gguf"));
        SplitFiles.Cut(_folder.File("whole.gguf"), "source", 4, 8);
        bool struck = true;
        int refused = 0;
        for (int call = 0; struck; call++)
        {
            Directory.CreateDirectory(_folder.File("work"));
            FaultyFileLayer files = new(DiskFileLayer.Instance, call, fault);
            QuantizationOptions keep = new() { KeepSplit = true };
            Exception? failure = Record.Exception(() => Conversions.Quantize(_folder.File("source-00002-of-00003.gguf"), _folder.File("work/out.gguf"), "Q8_0", new RunContext { Files = files, Threads = 1 }, quantization: keep));
            string where = $"call {call} ({files.Log.ElementAtOrDefault(call)}) with {fault}: {failure}";
            Assert.True(failure is null or QuantException, where);
            string[] parts = Directory.GetFiles(_folder.File("work"), "out-*.gguf");
            bool isWhole = File.Exists(_folder.File("work/out-00001-of-00003.gguf"));
            Assert.True(isWhole ? parts.Length == 3 : failure is not null, where);
            if (failure is not null) refused++;
            Directory.Delete(_folder.File("work"), recursive: true);
            struck = files.Struck;
        }

        output.WriteLine($"{fault}: {refused} refused");
        Assert.True(refused > 20);
    }

    private void Check(Fault fault, bool isFolder, Action<string, string, RunContext> convert)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), TestCheckpoint.Small with { NumHiddenLayers = 1 });
        Directory.CreateDirectory(_folder.File("reference"));
        string name = isFolder ? "out" : "out.gguf";
        convert(source, _folder.File("reference/" + name), new RunContext { Threads = 1 });
        Dictionary<string, byte[]> expected = Contents(_folder.File("reference/" + name));

        int refused = 0, published = 0;
        for (int call = 0; ; call++)
        {
            string work = _folder.File("work");
            Directory.CreateDirectory(work);
            string target = Path.Combine(work, name);
            FaultyFileLayer files = new(DiskFileLayer.Instance, call, fault);
            Exception? failure = Record.Exception(() => convert(source, target, new RunContext { Files = files, Threads = 1 }));
            string where = $"call {call} ({files.Log.ElementAtOrDefault(call)}) with {fault}";
            if (failure is not null and not QuantException) Assert.Fail($"{where}: {failure}");

            bool exists = File.Exists(target) || Directory.Exists(target);
            if (exists) AssertSame(expected, Contents(target), where);
            else Assert.True(failure is not null, $"{where}: no error and no output");
            bool benign = fault == Fault.ShortRead || (fault == Fault.Truncated && files.Log.ElementAtOrDefault(call)?.Contains("read", StringComparison.Ordinal) != true);
            if (benign) Assert.True(failure is null, $"{where}: {failure}");
            if (failure is null) published++;
            else refused++;
            Directory.Delete(work, recursive: true);
            if (!files.Struck) break;
        }

        output.WriteLine($"{fault}: {refused + published - 1} faults injected, {refused} refused");
        Assert.True(refused + published > 20);
    }

    /// <summary>Files of an output but for its report, which holds timings.</summary>
    private static Dictionary<string, byte[]> Contents(string path) => File.Exists(path)
        ? new() { [Path.GetFileName(path)] = File.ReadAllBytes(path) }
        : Directory.GetFiles(path).Where(file => !file.EndsWith("qwen2quant.json", StringComparison.Ordinal)).ToDictionary(file => Path.GetFileName(file), File.ReadAllBytes);

    private static void AssertSame(Dictionary<string, byte[]> expected, Dictionary<string, byte[]> found, string where)
    {
        Assert.True(expected.Keys.Order().SequenceEqual(found.Keys.Where(name => !name.StartsWith('.')).Order()), $"{where}: {string.Join(", ", found.Keys)}");
        foreach ((string name, byte[] bytes) in expected) Assert.True(bytes.AsSpan().SequenceEqual(found[name]), $"{where}: {name} differs");
    }
}
