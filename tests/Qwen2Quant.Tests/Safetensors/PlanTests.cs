using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Xunit.Abstractions;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Safetensors;

public sealed class PlanTests(ITestOutputHelper output)
{
    private static readonly Dictionary<string, string> NoMetadata = [];

    /// <summary>Headers written by the reference library, of models saved by llm-compressor and AutoAWQ.</summary>
    [Theory]
    [InlineData("llmcompressor-w4a16")]
    [InlineData("llmcompressor-nvfp4a16")]
    [InlineData("autoawq-g128")]
    public void HeaderEqualsTheReferenceWritersByteForByte(string name)
    {
        byte[] golden = File.ReadAllBytes(Path.Combine(TestFolder(), "Data", name + ".header.bin"));
        long dataBytes = JsonOffsets(golden).Max();
        SafetensorsFile file = SafetensorsFile.Open(new FilledFile(golden, golden.Length + dataBytes), new ReadOptions());
        OutputTensor[] tensors = [.. file.Tensors.Select(static entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))];
        new Random(1).Shuffle(tensors);
        PlannedFile planned = SafetensorsPlan.Create(tensors, file.Metadata, long.MaxValue).Files.Single();
        Assert.Equal(Encoding.UTF8.GetString(golden, 8, golden.Length - 8), Encoding.UTF8.GetString(planned.Header, 8, planned.Header.Length - 8));
        Assert.Equal(golden, planned.Header);
        Assert.Equal(golden.Length + dataBytes, planned.ByteLength);
    }

    [Fact]
    public void WhatIsPlannedIsReadBack()
    {
        const int Seed = 42;
        Random random = new(Seed);
        output.WriteLine($"seed {Seed}");
        string[] oddNames = ["", " ", "a/b", "../x", "\"quoted\\", "\u0001\u001b[2J", "ü", "\u2028", "😀", "\uffff", "__metadata", "x.safetensors", new('n', 5000)];
        for (int round = 0; round < 200; round++)
        {
            OutputTensor[] tensors = [.. oddNames.OrderBy(_ => random.Next()).Take(random.Next(oddNames.Length + 1)).Select(name => RandomTensor(name, random))];
            Dictionary<string, string> metadata = Enumerable.Range(0, random.Next(3)).ToDictionary(i => oddNames[i + random.Next(10)] + i, i => oddNames[random.Next(oddNames.Length)]);
            CheckReadBack(SafetensorsPlan.Create(tensors, metadata, random.Next(1, 400)), tensors, metadata);
        }
    }

    [Fact]
    public void DataAreAlignedToTheirValues()
    {
        OutputTensor[] tensors = [.. SafetensorsDtypes.All.Select(static (dtype, i) => new OutputTensor($"t{i:D2}", dtype.Element, new Shape(4, 3)))];
        PlannedFile file = SafetensorsPlan.Create(tensors, NoMetadata, long.MaxValue).Files.Single();
        Assert.Equal(0, file.Header.Length % 8);
        Assert.Equal(tensors.Reverse().Select(static tensor => tensor.Name), file.Tensors.Select(static tensor => tensor.Tensor.Name));
        Assert.All(file.Tensors, static tensor => Assert.True(tensor.Tensor.Type.ValuesPerBlock > 1 || tensor.ByteOffset % tensor.Tensor.Type.BytesPerBlock == 0));
    }

    [Fact]
    public void NamesOfOneDtypeAreInOrderOfTheirBytes()
    {
        string[] names = ["\ue000", "a.10", "a.2", "😀", "A", "a"];
        PlannedFile file = SafetensorsPlan.Create([.. names.Select(static name => new OutputTensor(name, PlainTypes.F32, new Shape(1)))], NoMetadata, 100).Files.Single();
        Assert.Equal(names.OrderBy(static name => Convert.ToHexString(Encoding.UTF8.GetBytes(name)), StringComparer.Ordinal), file.Tensors.Select(static tensor => tensor.Tensor.Name));
    }

    [Fact]
    public void ShardsAreFilledInTheGivenOrderAndNeverSplitATensor()
    {
        int[] byteLengths = [4, 4, 2, 40, 3, 10, 1];
        OutputTensor[] tensors = [.. byteLengths.Select(static (bytes, i) => new OutputTensor($"t{i}", PlainTypes.U8, new Shape(bytes)))];
        SafetensorsPlan plan = SafetensorsPlan.Create(tensors, new Dictionary<string, string> { ["format"] = "pt" }, 10);
        Assert.Equal(["t3", "t0 t1 t2", "t4", "t5", "t6"], plan.Files.Select(static file => string.Join(' ', file.Tensors.Select(static tensor => tensor.Tensor.Name))));
        Assert.Equal(Enumerable.Range(1, 5).Select(static i => $"model-0000{i}-of-00005.safetensors"), plan.Files.Select(static file => file.Name));
        string index = Encoding.UTF8.GetString(plan.Index!);
        Assert.StartsWith("{\n  \"metadata\": {\n    \"total_size\": 64\n  },\n  \"weight_map\": {\n    \"t0\": \"model-00002-of-00005.safetensors\",\n", index, StringComparison.Ordinal);
        Assert.EndsWith("    \"t6\": \"model-00005-of-00005.safetensors\"\n  }\n}\n", index, StringComparison.Ordinal);
    }

    [Fact]
    public void OneShardHasThePlainNameAndNoIndex()
    {
        SafetensorsPlan plan = SafetensorsPlan.Create([], NoMetadata, 1);
        Assert.Equal("model.safetensors", plan.Files.Single().Name);
        Assert.Null(plan.Index);
        Assert.Equal("\u0008\0\0\0\0\0\0\0{}      ", Encoding.ASCII.GetString(plan.Files[0].Header));
    }

    [Fact]
    public void WhatCouldNotBeReadBackIsRefused()
    {
        Refuse(SafetensorsRules.UniqueNames, new("a", PlainTypes.F32, new Shape(1)), new("a", PlainTypes.F16, new Shape(1)));
        Refuse(SafetensorsRules.MetadataOfStrings, new OutputTensor("__metadata__", PlainTypes.F32, new Shape(1)));
        Refuse(SafetensorsRules.HeaderIsUtf8, new OutputTensor("\ud800", PlainTypes.F32, new Shape(1)));
        Refuse(SafetensorsRules.NameWithinLimit, new OutputTensor(new string('n', (1 << 20) + 1), PlainTypes.F32, new Shape(1)));
        Refuse(SafetensorsRules.KnownDtype, new OutputTensor("a", new FakeType(), new Shape(32)));
        Refuse(SafetensorsRules.WholeDimensions, new OutputTensor("a", PlainTypes.F32, new Shape(1, 1, 1, 1, 1, 1, 1, 1, 1)));
        Refuse(SafetensorsRules.SizeMatches, new OutputTensor("a", SafetensorsDtypes.Find("F4")!.Element, new Shape(3)));
        Refuse(SafetensorsRules.SizeWithinRange, new OutputTensor("a", PlainTypes.F32, new Shape(1L << 62)));
        Refuse(SafetensorsRules.SizeWithinRange, new("a", PlainTypes.U8, new Shape(1L << 62)), new("b", PlainTypes.U8, new Shape(1L << 62)));
    }

    [Fact]
    public void DtypesAreListedOnceAndFound()
    {
        Assert.Equal(22, SafetensorsDtypes.All.Count);
        Assert.All(SafetensorsDtypes.All, static dtype =>
        {
            Assert.Same(dtype, SafetensorsDtypes.Find(dtype.Name));
            Assert.Same(dtype, SafetensorsDtypes.Of(dtype.Element));
            Assert.Equal(dtype.Name, dtype.Element.Name);
        });
        Assert.Null(SafetensorsDtypes.Find("f32"));
    }

    internal static void CheckReadBack(SafetensorsPlan plan, OutputTensor[] tensors, Dictionary<string, string> metadata)
    {
        MemoryFolder folder = new MemoryFolder().With(plan);
        EventLog log = new();
        using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions { Events = log });
        Assert.Empty(log.Events);
        Assert.Equal(tensors.Length, checkpoint.Tensors.Count);
        Assert.All(checkpoint.Files, file => Assert.Equal(metadata.OrderBy(static pair => pair.Key), file.Metadata.OrderBy(static pair => pair.Key)));
        foreach (OutputTensor tensor in tensors)
        {
            TensorEntry entry = checkpoint.Find(tensor.Name)!;
            Assert.Equal((tensor.Type, tensor.Shape), (entry.Type, entry.Shape));
            PlannedFile file = plan.Files[entry.FileIndex];
            Assert.Equal(file.Tensors.Single(planned => planned.Tensor == tensor).ByteOffset, entry.ByteOffset);
            byte[] bytes = new byte[entry.ByteLength];
            checkpoint.ReadRaw(entry, 0, bytes);
            Assert.True(folder[file.Name].AsSpan((int)entry.ByteOffset, bytes.Length).SequenceEqual(bytes));
        }
    }

    private static OutputTensor RandomTensor(string name, Random random)
    {
        ElementType type = SafetensorsDtypes.All[random.Next(SafetensorsDtypes.All.Count)].Element;
        long[] dimensions = [.. Enumerable.Range(0, random.Next(type.ValuesPerBlock == 1 ? 0 : 1, 5)).Select(_ => (long)random.Next(4))];
        if (type.ValuesPerBlock > 1) dimensions[^1] *= type.ValuesPerBlock;
        return new OutputTensor(name, type, new Shape(dimensions));
    }

    private static void Refuse(Rule rule, params OutputTensor[] tensors) =>
        Assert.Same(rule, Assert.Throws<QuantException>(() => SafetensorsPlan.Create(tensors, NoMetadata, 1000)).Rule);

    private static IEnumerable<long> JsonOffsets(byte[] golden)
    {
        using System.Text.Json.JsonDocument header = System.Text.Json.JsonDocument.Parse(golden.AsMemory(8));
        return [.. header.RootElement.EnumerateObject()
            .Where(static member => member.Name != "__metadata__")
            .Select(static member => member.Value.GetProperty("data_offsets")[1].GetInt64())];
    }

    private static string TestFolder()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Qwen2Quant.sln"))) return Path.Combine(folder.FullName, "tests", "Qwen2Quant.Tests", "Safetensors");
        }

        throw new InvalidOperationException("the tests do not run inside the repository");
    }

    private sealed class FakeType : ElementType
    {
        public override string Name => "Q4_0";
        public override int ValuesPerBlock => 32;
        public override int BytesPerBlock => 18;

        public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values) => values.Clear();
    }
}
