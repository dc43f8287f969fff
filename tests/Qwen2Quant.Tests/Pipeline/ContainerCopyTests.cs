using System.Text;
using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Gguf;
using Qwen2Quant.Tests.Safetensors;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Merging and splitting look at no value: whatever a container holds comes out as it went in.</summary>
public sealed class ContainerCopyTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Every value type, what writers leave out or add for models of their own, bytes that are no text, another alignment, another architecture.</summary>
    [Fact]
    public void AGgufFileComesBackToTheByte()
    {
        RawGguf raw = RawGguf.Sample();
        raw.Tensors.Clear();
        raw.Text("general.name", "").Texts("general.tags").Text("not.text", [0xff, 0xfe]).Align(64);
        byte[] whole = raw.Tensor("a", 0, 16, 3).Tensor("b", 8, 32, 32).Tensor("c", 0, 16).Build();
        string path = _folder.Write("whole.gguf", whole);
        ContainerReport split = Conversions.Copy(path, _folder.File("cut.gguf"), new ContainerLimit(null, 1));
        Assert.Equal((3, 3, _folder.File("cut-00001-of-00003.gguf")), (split.Files, split.Tensors, split.Output));
        using (GgufFile last = GgufFile.Open(DiskFileLayer.Instance, _folder.File("cut-00003-of-00003.gguf"), new ReadOptions()))
        {
            Assert.Equal([GgufKeys.Alignment, GgufKeys.SplitNo, GgufKeys.SplitTensorCount, GgufKeys.SplitCount], last.Parts[2].Metadata.Select(pair => pair.Key));
        }

        Conversions.Copy(_folder.File("cut-00002-of-00003.gguf"), _folder.File("again.gguf"));
        Assert.Equal(whole, File.ReadAllBytes(_folder.File("again.gguf")));
    }

    /// <summary>A type that is sized only, NaN, a scalar, an empty tensor, nibbles in rows of half a byte; metadata of both shards.</summary>
    [Fact]
    public void AFolderOfAnyTypesKeepsItsBytes()
    {
        WriteOddFolder();
        RunContext context = new();
        ContainerReport merged = Conversions.Copy(_folder.File("odd"), _folder.File("one"), context: context);
        Conversions.Copy(_folder.File("one"), _folder.File("cut"), new ContainerLimit(4, null));
        Assert.Equal((1, 6), (merged.Files, merged.Tensors));
        Assert.Equal(["metadata-differ"], context.Events.Events.Select(item => item.Code));
        using SafetensorsCheckpoint before = Open("odd"), one = Open("one"), cut = Open("cut");
        Assert.Equal(5, cut.Files.Count);
        Assert.Equal([0xa5, 0x7f], Bytes(one, "nan")[..2]);
        Assert.Equal(new Dictionary<string, string> { ["format"] = "pt", ["first"] = "1", ["second"] = "2", ["both"] = "1" }, one.Files[0].Metadata);
        foreach (TensorEntry entry in before.Tensors)
        {
            Assert.Equal((entry.Type, entry.Shape), (one.Find(entry.Name)!.Type, one.Find(entry.Name)!.Shape));
            Assert.Equal(Bytes(before, entry.Name), Bytes(one, entry.Name));
            Assert.Equal(Bytes(before, entry.Name), Bytes(cut, entry.Name));
        }
    }

    [Fact]
    public void WhatIsNoSmallFileStaysBehindAndIsNamed()
    {
        WriteOddFolder();
        Directory.CreateDirectory(_folder.File("odd/original"));
        _folder.Write("odd/pytorch_model.bin", new byte[1001]);
        _folder.Write("odd/chat_template.jinja", "{{ messages }}");
        RunContext context = new() { Limits = new() { JsonFileBytes = 1000 } };
        Conversions.Copy(_folder.File("odd"), _folder.File("one"), context: context);
        Assert.Equal(["chat_template.jinja", "config.json", "model.safetensors"], Directory.GetFileSystemEntries(_folder.File("one")).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal));
        Assert.Equal("{{ messages }}", File.ReadAllText(_folder.File("one/chat_template.jinja")));
        string[] left = [.. context.Events.Events.Where(item => item.Code == "not-copied").Select(item => item.Message)];
        Assert.Equal(2, left.Length);
        Assert.StartsWith("original:", left[0], StringComparison.Ordinal);
        Assert.StartsWith("pytorch_model.bin:", left[1], StringComparison.Ordinal);
    }

    [Fact]
    public void ADryRunWritesNothingAndSaysAsMuch()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        using ContainerCopy copy = ContainerCopy.Open(model, new ContainerLimit(50_000, null), _folder.File("cut"), new RunContext());
        ContainerReport plan = copy.Run(force: false, dryRun: true);
        Assert.False(Directory.Exists(_folder.File("cut")));
        ContainerReport done = copy.Run(force: false, dryRun: false);
        Assert.Equal((true, false), (plan.DryRun, done.DryRun));
        Assert.Equal((plan.Files, plan.Bytes), (done.Files, done.Bytes));
        Assert.Equal(done.Bytes, Directory.GetFiles(_folder.File("cut")).Sum(path => new FileInfo(path).Length));
    }

    [Fact]
    public void OneFileThatStaysOneIsNoted()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        Assert.Equal("one-file", Assert.Single(Conversions.Copy(model, _folder.File("same")).Events).Code);
        Assert.Equal("one-file", Assert.Single(Conversions.Copy(model, _folder.File("cut"), new ContainerLimit(1L << 40, null)).Events).Code);
    }

    [Fact]
    public void ASourceThatChangesMeanwhileIsRefused()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        RunContext context = new() { Progress = new Meddling(() => File.SetLastWriteTimeUtc(Path.Combine(model, "model.safetensors"), DateTime.UnixEpoch)) };
        QuantException refused = Assert.Throws<QuantException>(() => Conversions.Copy(model, _folder.File("out"), context: context));
        Assert.Same(WeightFileRules.FileUnchanged, refused.Rule);
        Assert.Equal([model], Directory.GetFileSystemEntries(_folder.Path));
    }

    private void WriteOddFolder()
    {
        Skeleton first = new() { Metadata = """{"format":"pt","first":"1","both":"1"}""", DataBytes = 13 }, second = new() { Metadata = """{"format":"pt","second":"2","both":"2"}""", DataBytes = 7 };
        first.Entries.Clear();
        first.Entries.AddRange([new("x", "F32", "[]", "0", "4"), new("nan", "BF16", "[2]", "4", "8"), new("exponents", "F8_E8M0", "[5]", "8", "13")]);
        second.Entries.Clear();
        second.Entries.AddRange([new("empty", "I64", "[0,3]", "0", "0"), new("words", "I32", "[1]", "0", "4"), new("nibbles", "F4", "[6,1]", "4", "7")]);
        byte[] nan = first.Build();
        BitConverter.TryWriteBytes(nan.AsSpan(nan.Length - 9), (ushort)0x7fa5);
        _folder.Write("odd/model-00001-of-00002.safetensors", nan);
        _folder.Write("odd/model-00002-of-00002.safetensors", second.Build());
        JsonObject map = [];
        foreach (string name in first.Entries.Select(entry => entry.Name)) map[name.Trim('"')] = "model-00001-of-00002.safetensors";
        foreach (string name in second.Entries.Select(entry => entry.Name)) map[name.Trim('"')] = "model-00002-of-00002.safetensors";
        _folder.Write("odd/model.safetensors.index.json", Encoding.UTF8.GetBytes(new JsonObject { ["weight_map"] = map }.ToJsonString()));
        _folder.Write("odd/config.json", "{}");
    }

    private SafetensorsCheckpoint Open(string name) => SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File(name), new ReadOptions());

    private static byte[] Bytes(SafetensorsCheckpoint source, string name)
    {
        TensorEntry entry = source.Find(name)!;
        byte[] bytes = new byte[entry.ByteLength];
        source.ReadRaw(entry, 0, bytes);
        return bytes;
    }

    /// <summary>Does something when the first task starts.</summary>
    private sealed class Meddling(Action meddle) : IProgressSink
    {
        public IProgressTask Start(string title, long total, string unit)
        {
            meddle();
            return NoProgress.Instance;
        }
    }
}
