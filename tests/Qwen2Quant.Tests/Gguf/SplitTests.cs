using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

public class SplitTests
{
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void Naming_any_part_opens_the_whole_model(int named)
    {
        MemoryFolder files = SplitCases.Set();
        EventLog events = new();
        using GgufFile file = GgufFile.Open(files, SplitCases.Name(named), new ReadOptions { Events = events });
        Assert.Empty(events.Events);
        Assert.Equal([SplitCases.Name(0), SplitCases.Name(1), SplitCases.Name(2)], file.Parts.Select(part => part.Path));
        Assert.True(file.Metadata.TryGetString("general.architecture", out _));
        Assert.Equal(["t0.0", "t0.1", "t1.0", "t1.1", "t2.0", "t2.1"], file.Tensors.Select(tensor => tensor.Name));
        Assert.Equal([0, 0, 1, 1, 2, 2], file.Tensors.Select(tensor => tensor.FileIndex));
        TensorEntry last = file.Find("t2.1")!;
        byte[] bytes = new byte[last.ByteLength];
        file.ReadRaw(last, 0, bytes);
        Assert.Equal(files[SplitCases.Name(2)].AsSpan((int)last.ByteOffset, bytes.Length).ToArray(), bytes);
        Assert.Equal(3, GgufFile.Inspect(files, SplitCases.Name(named), new ReadOptions()).Count);
    }

    [Fact]
    public void A_missing_part_is_named()
    {
        MemoryFolder files = SplitCases.Set();
        files.Without(SplitCases.Name(1));
        QuantException error = Assert.Throws<QuantException>(() => GgufFile.Open(files, SplitCases.Name(2), new ReadOptions()));
        Assert.Equal(SplitCases.Name(1), error.Path);
        Assert.Contains("part 2 of 3", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_part_opened_without_its_folder_is_refused()
    {
        QuantException error = Assert.Throws<QuantException>(() => Opening.Open(SplitCases.Part(0)));
        Assert.Equal("GG-51", error.Rule!.Id);
    }

    [Theory]
    [InlineData("model-00001-of-00003.gguf", "model", 0, 3)]
    [InlineData("-00012-of-00345.gguf", "", 11, 345)]
    [InlineData("a-00001-of-00002-00002-of-00002.gguf", "a-00001-of-00002", 1, 2)]
    public void Names_of_parts_are_taken_apart(string name, string prefix, int index, int count)
    {
        Assert.True(GgufSplit.TryParsePartName(name, out string foundPrefix, out int foundIndex, out int foundCount));
        Assert.Equal((prefix, index, count), (foundPrefix, foundIndex, foundCount));
        Assert.Equal(name, GgufSplit.PartName(prefix, index, count));
    }

    [Theory]
    [InlineData("model.gguf")]
    [InlineData("model-00001-of-00003.GGUF")]
    [InlineData("model-0001-of-00003.gguf")]
    [InlineData("model-+0001-of-00003.gguf")]
    [InlineData("model-00001-of-000 3.gguf")]
    [InlineData("model_00001-of-00003.gguf")]
    [InlineData("00001-of-00003.gguf")]
    [InlineData("")]
    public void Other_names_are_not(string name) => Assert.False(GgufSplit.TryParsePartName(name, out _, out _, out _));

    [Fact]
    public void A_planned_set_has_the_keys_of_gguf_split_and_opens_again()
    {
        GgufMetadata metadata = new();
        metadata.Set("split.count", GgufValue.Scalar((ushort)9));
        metadata.Set("general.architecture", GgufValue.String("qwen2"));
        OutputTensor[] tensors = [.. Enumerable.Range(0, 5).Select(i => new OutputTensor($"t{i}", PlainTypes.F32, new Shape(3, i + 1)))];
        IReadOnlyList<PlannedFile> planned = GgufPlan.CreateSplit(metadata, tensors, "m", GgufSplitLimit.Tensors(2));
        Assert.Equal(["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"], planned.Select(file => file.Name));
        Assert.Equal([2, 2, 1], planned.Select(file => file.Tensors.Count));

        MemoryFolder files = new();
        foreach (PlannedFile file in planned) files[file.Name] = Planned.Write(file);
        using GgufFile opened = GgufFile.Open(files, planned[1].Name, new ReadOptions());
        Assert.Equal(tensors.Select(tensor => tensor.Name), opened.Tensors.Select(tensor => tensor.Name));
        Assert.Equal(["general.architecture", "split.no", "split.tensors.count", "split.count"], opened.Metadata.Select(pair => pair.Key));
        Assert.Equal(["split.no", "split.tensors.count", "split.count"], opened.Parts[2].Metadata.Select(pair => pair.Key));
        Assert.Equal(GgufValue.Scalar((ushort)2), opened.Parts[2].Metadata.Find("split.no"));
        Assert.Equal(GgufValue.Scalar((ushort)3), opened.Parts[2].Metadata.Find("split.count"));
        Assert.Equal(GgufValue.Scalar(5), opened.Parts[2].Metadata.Find("split.tensors.count"));
    }

    [Fact]
    public void Bytes_are_counted_padded_and_a_large_tensor_has_a_part_of_its_own()
    {
        OutputTensor[] tensors = [.. new long[] { 8, 9, 100, 1, 1 }.Select((length, i) => new OutputTensor($"t{i}", PlainTypes.F32, new Shape(length)))];
        Assert.Equal([2, 1, 2], GgufPlan.CreateSplit(new GgufMetadata(), tensors, "m", GgufSplitLimit.Bytes(96)).Select(file => file.Tensors.Count));
        Assert.Equal([1, 1, 1, 2], GgufPlan.CreateSplit(new GgufMetadata(), tensors, "m", GgufSplitLimit.Bytes(95)).Select(file => file.Tensors.Count));
        Assert.Equal([5], GgufPlan.CreateSplit(new GgufMetadata(), tensors, "m", GgufSplitLimit.Bytes(long.MaxValue)).Select(file => file.Tensors.Count));
        Assert.Throws<ArgumentOutOfRangeException>(() => GgufSplitLimit.Bytes(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => GgufSplitLimit.Tensors(0));
    }

    [Fact]
    public void Given_parts_are_kept_and_a_custom_alignment_holds_in_all()
    {
        GgufMetadata metadata = new();
        metadata.Set("general.alignment", GgufValue.Scalar(4096u));
        IReadOnlyList<OutputTensor>[] parts = [[], [new("a", PlainTypes.I8, new Shape(5)), new("b", PlainTypes.I8, new Shape(5))]];
        IReadOnlyList<PlannedFile> planned = GgufPlan.CreateSplit(metadata, parts, "m");
        Assert.Equal([0, 2], planned.Select(file => file.Tensors.Count));
        Assert.All(planned, file => Assert.Equal(0, file.ByteLength % 4096));
        MemoryFolder files = new();
        foreach (PlannedFile file in planned) files[file.Name] = Planned.Write(file);
        using GgufFile opened = GgufFile.Open(files, planned[0].Name, new ReadOptions());
        Assert.Equal([4096, 4096], opened.Parts.Select(part => part.Alignment));
        Assert.Equal("GG-51", Assert.Throws<QuantException>(() => GgufPlan.CreateSplit(metadata, [], "m")).Rule!.Id);
        IReadOnlyList<OutputTensor>[] twice = [[new("a", PlainTypes.I8, new Shape(5))], [new("a", PlainTypes.I8, new Shape(5))]];
        Assert.Equal("GG-43", Assert.Throws<QuantException>(() => GgufPlan.CreateSplit(metadata, twice, "m")).Rule!.Id);
    }

    [Fact]
    public void Only_the_first_part_must_tell_the_quantization_version()
    {
        OutputTensor plain = new("a", PlainTypes.F32, new Shape(8)), quantized = new("b", GgmlTypes.Find("Q8_0")!.Element, new Shape(32));
        MemoryFolder files = new();
        IReadOnlyList<PlannedFile> planned = GgufPlan.CreateSplit(new GgufMetadata(), [plain, quantized], "m", GgufSplitLimit.Tensors(1));
        foreach (PlannedFile file in planned) files[file.Name] = Planned.Write(file);
        EventLog events = new();
        using GgufFile opened = GgufFile.Open(files, planned[0].Name, new ReadOptions { Events = events });
        Assert.Empty(events.Events);
        Assert.NotNull(opened.Metadata.Find("general.quantization_version"));
        Assert.Null(opened.Parts[1].Metadata.Find("general.quantization_version"));
    }
}
