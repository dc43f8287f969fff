using System.Security.Cryptography;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>A file of 320 bytes that llama.cpp loads and writes back byte for byte, and what llama.cpp does with mutations of it.</summary>
public class GoldenFileTests
{
    private const string Hex =
        "474755460300000002000000000000000300000000000000140000000000000067656e6572616c2e617263686974656374757265080000000500000000000000" +
        "7177656e32110000000000000067656e6572616c2e616c69676e6d656e7404000000200000001900000000000000746f6b656e697a65722e67676d6c2e746f6b" +
        "656e5f74797065090000000500000003000000000000000100000003000000050000000800000000000000612e77656967687402000000030000000000000002" +
        "000000000000000000000000000000000000000600000000000000622e6269617301000000030000000000000001000000200000000000000000000000000000" +
        "000000000000803f0000004000004040000080400000a0400000000000000000003e00c000340000000000000000000000000000000000000000000000000000";

    private const int SecondOffsetField = 241, FirstNameLength = 163, DataOffset = 256;

    private static readonly byte[] Golden = Convert.FromHexString(Hex);

    [Fact]
    public void Golden_bytes_are_the_published_ones() =>
        Assert.Equal("381e4629b8936c2aa47a7d33223b838bf106a0c2919e4d3bfee88e0544d99861", Convert.ToHexStringLower(SHA256.HashData(Golden)));

    [Fact]
    public void Reads_what_it_says()
    {
        EventLog events = new();
        using GgufFile file = Opening.Open(Golden, events);
        Assert.Empty(events.Events);
        Assert.Equal((3, 32, DataOffset), (file.Version, file.Alignment, (int)file.Parts[0].DataOffset));
        Assert.Equal(["general.architecture", "general.alignment", "tokenizer.ggml.token_type"], file.Metadata.Select(pair => pair.Key));
        Assert.True(file.Metadata.TryGetString("general.architecture", out string? architecture));
        Assert.Equal("qwen2", architecture);
        Assert.True(file.Metadata.TryGetIntegerArray("tokenizer.ggml.token_type", out int[]? types));
        Assert.Equal([1, 3, 5], types);
        Assert.Equal(["a.weight", "b.bias"], file.Tensors.Select(tensor => tensor.Name));
        Assert.Equal(new Shape(2, 3), file.Tensors[0].Shape);
        Assert.Equal([0, 1, 2, 3, 4, 5], file.ReadAll(file.Tensors[0]));
        Assert.Equal(288, file.Find("b.bias")!.ByteOffset);
        Assert.Equal([1.5f, -2, 0.25f], file.ReadAll(file.Find("b.bias")!));
        Assert.Null(file.Find("c"));
    }

    [Fact]
    public void Planning_it_again_gives_the_same_bytes()
    {
        using GgufFile file = Opening.Open(Golden);
        PlannedFile plan = GgufPlan.Create(file.Metadata, [.. file.Tensors.Select(t => new OutputTensor(t.Name, t.Type, t.Shape))], "again.gguf");
        byte[] written = new byte[plan.ByteLength];
        plan.Header.CopyTo(written, 0);
        foreach (PlannedTensor tensor in plan.Tensors)
        {
            file.ReadRaw(file.Find(tensor.Tensor.Name)!, 0, written.AsSpan((int)tensor.ByteOffset, (int)tensor.Tensor.ByteLength));
        }

        Assert.Equal(Golden, written);
        Assert.Equal("again.gguf", plan.Name);
    }

    [Fact]
    public void A_gap_before_the_second_tensor_is_refused() => Refused("GG-48", Patched(SecondOffsetField, 64));

    [Fact]
    public void An_unpadded_second_offset_is_refused() => Refused("GG-42", Patched(SecondOffsetField, 24));

    [Theory]
    [InlineData(24)]
    [InlineData(0)]
    [InlineData(33)]
    public void An_alignment_that_is_no_power_of_two_is_refused(byte alignment) => Refused("GG-41", Patched(Find("general.alignment") + 17 + 4, alignment));

    [Fact]
    public void A_removed_type_is_refused_and_listed()
    {
        byte[] bytes = Patched(SecondOffsetField - 4, 36);
        Refused("GG-46", bytes);
        GgufPart part = Assert.Single(GgufFile.Inspect(new MemoryFolder { ["m.gguf"] = bytes }, "m.gguf", new ReadOptions()));
        Assert.Equal((36, null, "b.bias"), (part.Tensors[1].TypeId, part.Tensors[1].Type, part.Tensors[1].Name));
    }

    [Fact]
    public void Cut_within_the_last_padding_is_accepted_with_an_event()
    {
        EventLog events = new();
        using GgufFile file = Opening.Open(Golden[..300], events);
        Assert.Equal([1.5f, -2, 0.25f], file.ReadAll(file.Tensors[1]));
        Assert.Equal("gguf-padding-cut", Assert.Single(events.Events).Code);
    }

    [Fact]
    public void Every_cut_before_the_last_data_byte_is_refused()
    {
        const int LastDataByte = 288 + 6;
        for (int length = 0; length < LastDataByte; length++)
        {
            QuantException error = Assert.Throws<QuantException>(() => Opening.Open(Golden[..length]));
            Assert.NotNull(error.Rule);
            Assert.Equal(ErrorKind.InvalidInput, error.Kind);
        }

        Opening.Open(Golden[..LastDataByte]).Dispose();
    }

    [Fact]
    public void Alignment_8_with_offsets_for_it_is_accepted()
    {
        byte[] bytes = Patched(SecondOffsetField, 24);
        bytes[Find("general.alignment") + 17 + 4] = 8;
        using GgufFile file = Opening.Open(bytes);
        Assert.Equal((8, DataOffset + 24L), (file.Alignment, file.Tensors[1].ByteOffset));
    }

    [Fact]
    public void A_second_tensor_of_the_same_name_is_refused()
    {
        Assert.Equal(FirstNameLength + 8, Find("a.weight"));
        byte[] renamed = [.. Golden[..FirstNameLength], 6, 0, 0, 0, 0, 0, 0, 0, .. "b.bias"u8, .. Golden[(FirstNameLength + 16)..249], .. new byte[9], .. Golden[256..]];
        Refused("GG-43", renamed);
    }

    private static int Find(string text) => Golden.AsSpan().IndexOf(System.Text.Encoding.ASCII.GetBytes(text));

    private static byte[] Patched(int index, byte value)
    {
        byte[] bytes = Golden.ToArray();
        bytes[index] = value;
        return bytes;
    }

    private static void Refused(string rule, byte[] bytes) => Assert.Equal(rule, Assert.Throws<QuantException>(() => Opening.Open(bytes)).Rule?.Id);
}
