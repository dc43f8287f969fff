using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

internal static class Planned
{
    /// <summary>A planned file with tensor bytes that tell the tensor and the place.</summary>
    public static byte[] Write(PlannedFile plan)
    {
        byte[] bytes = new byte[plan.ByteLength];
        plan.Header.CopyTo(bytes, 0);
        for (int t = 0; t < plan.Tensors.Count; t++)
        {
            PlannedTensor tensor = plan.Tensors[t];
            for (int i = 0; i < tensor.Tensor.ByteLength; i++) bytes[tensor.ByteOffset + i] = (byte)((t * 37) + i + 1);
        }

        return bytes;
    }
}

public class PlanTests
{
    [Fact]
    public void Bytes_are_those_of_the_independent_builder()
    {
        RawGguf raw = RawGguf.Sample();
        raw.Keys.RemoveAll(key => key.Name.AsSpan().SequenceEqual("tokens"u8));
        using GgufFile file = Opening.Open(raw);
        PlannedFile plan = GgufPlan.Create(file.Metadata, Outputs(file), "m.gguf");
        (byte[] header, long dataLength) = raw.BuildHeader();
        Assert.Equal(header, plan.Header);
        Assert.Equal(header.Length + dataLength, plan.ByteLength);
        Assert.Equal(file.Tensors.Select(tensor => tensor.ByteOffset), plan.Tensors.Select(tensor => tensor.ByteOffset));
    }

    [Fact]
    public void An_empty_model_is_a_header()
    {
        PlannedFile plan = GgufPlan.Create(new GgufMetadata(), [], "m.gguf");
        Assert.Equal((32, 32L), (plan.Header.Length, plan.ByteLength));
        Opening.Open(plan.Header).Dispose();
    }

    [Fact]
    public void Empty_values_and_keys_of_split_files_are_left_out()
    {
        GgufMetadata metadata = new();
        metadata.Set("empty.text", GgufValue.String(""));
        metadata.Set("empty.array", GgufValue.Array<int>([]));
        metadata.Set("empty.texts", GgufValue.StringArray([]));
        metadata.Set("split.no", GgufValue.Scalar((ushort)0));
        metadata.Set("split.count", GgufValue.Scalar((ushort)2));
        metadata.Set("split.tensors.count", GgufValue.Scalar(3));
        metadata.Set("one.empty", GgufValue.StringArray([""]));
        using GgufFile file = Opening.Open(Planned.Write(GgufPlan.Create(metadata, [], "m.gguf")));
        Assert.Equal(["one.empty"], file.Metadata.Select(pair => pair.Key));
        Assert.Equal(7, metadata.Count);
    }

    [Fact]
    public void The_quantization_version_is_always_there_when_tensors_are_quantized()
    {
        GgmlType q8 = GgmlTypes.Find("Q8_0")!;
        OutputTensor[] tensors = [new("q", q8.Element, new Shape(2, 32))];
        GgufMetadata metadata = new();
        metadata.Set("a", GgufValue.Scalar(1u));
        EventLog events = new();
        using GgufFile appended = Opening.Open(Planned.Write(GgufPlan.Create(metadata, tensors, "m.gguf")), events);
        Assert.Empty(events.Events);
        Assert.Equal(["a", "general.quantization_version"], appended.Metadata.Select(pair => pair.Key));
        Assert.Equal(GgufValue.Scalar(2u), appended.Metadata.Find("general.quantization_version"));
        Assert.Equal(8, appended.Parts[0].Tensors[0].TypeId);

        metadata.Set("general.quantization_version", GgufValue.Scalar(3u));
        using GgufFile kept = Opening.Open(Planned.Write(GgufPlan.Create(metadata, tensors, "m.gguf")));
        Assert.Equal(GgufValue.Scalar(3u), kept.Metadata.Find("general.quantization_version"));
    }

    [Fact]
    public void Trailing_dimensions_of_one_are_written()
    {
        using GgufFile file = Opening.Open(Planned.Write(GgufPlan.Create(new GgufMetadata(), [new("t", PlainTypes.F16, new Shape(1, 1, 5))], "m.gguf")));
        Assert.Equal(new Shape(1, 1, 5), file.Tensors[0].Shape);
    }

    [Fact]
    public void Sizes_beyond_memory_are_planned_exactly()
    {
        OutputTensor[] tensors = [.. Enumerable.Range(0, 4).Select(i => new OutputTensor($"t{i}", PlainTypes.F32, new Shape(29568, 1 << 17)))];
        PlannedFile plan = GgufPlan.Create(new GgufMetadata(), tensors, "m.gguf");
        Assert.Equal(plan.Header.Length + (4 * 29568L * (1 << 17) * 4), plan.ByteLength);
        Assert.Equal(plan.Header.Length + (3 * 29568L * (1 << 17) * 4), plan.Tensors[3].ByteOffset);
    }

    [Fact]
    public void What_would_break_a_rule_is_refused_when_planned()
    {
        GgufValue one = GgufValue.Scalar(1u);
        RefusedKey("GG-34", "", one);
        RefusedKey("GG-34", new string('k', 65536), one);
        RefusedKey("GG-35", "Upper", one);
        RefusedKey("GG-35", "a..b", one);
        RefusedKey("GG-35", "a b", one);
        RefusedKey("GG-40", "x", GgufValue.Nested([GgufValue.Array([1])]));
        RefusedKey("GG-41", "general.alignment", GgufValue.Scalar(24u));
        RefusedKey("GG-41", "general.alignment", GgufValue.Scalar(32UL));
        RefusedTensor("GG-43", new OutputTensor("", PlainTypes.F32, new Shape(1)));
        RefusedTensor("GG-43", new OutputTensor(new string('n', 64), PlainTypes.F32, new Shape(1)));
        RefusedTensor("GG-43", new OutputTensor(new string('\u00e9', 32), PlainTypes.F32, new Shape(1)));
        RefusedTensor("GG-43", new OutputTensor("a\0", PlainTypes.F32, new Shape(1)));
        RefusedTensor("GG-43", new OutputTensor("first", PlainTypes.F32, new Shape(1)));
        RefusedTensor("GG-44", new OutputTensor("t", PlainTypes.F32, new Shape()));
        RefusedTensor("GG-44", new OutputTensor("t", PlainTypes.F32, new Shape(1, 1, 1, 1, 1)));
        RefusedTensor("GG-46", new OutputTensor("t", PlainTypes.U16, new Shape(1)));
        RefusedTensor("GG-47", new OutputTensor("t", GgmlTypes.Find("Q8_0")!.Element, new Shape(2, 33)));
        RefusedTensor("GG-49", new OutputTensor("t", PlainTypes.F64, new Shape(1L << 60)));
        RefusedTensor("GG-49", new OutputTensor("t", PlainTypes.I8, new Shape(long.MaxValue)));

        Opening.Open(Planned.Write(GgufPlan.Create(new GgufMetadata(), [new(new string('n', 63), PlainTypes.F32, new Shape(1))], "m"))).Dispose();

        static void RefusedKey(string rule, string key, GgufValue value)
        {
            GgufMetadata metadata = new();
            metadata.Set(key, value);
            Assert.Equal(rule, Assert.Throws<QuantException>(() => GgufPlan.Create(metadata, [], "m")).Rule!.Id);
        }

        static void RefusedTensor(string rule, OutputTensor tensor)
        {
            OutputTensor[] tensors = [new("first", PlainTypes.F32, new Shape(1)), tensor];
            Assert.Equal(rule, Assert.Throws<QuantException>(() => GgufPlan.Create(new GgufMetadata(), tensors, "m")).Rule!.Id);
        }
    }

    private static OutputTensor[] Outputs(GgufFile file) => [.. file.Tensors.Select(tensor => new OutputTensor(tensor.Name, tensor.Type, tensor.Shape))];
}
