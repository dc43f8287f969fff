using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

public class ReadingTests
{
    [Theory]
    [InlineData(1u)]
    [InlineData(2u)]
    [InlineData(3u)]
    public void All_versions_and_value_types_are_read(uint version)
    {
        EventLog events = new();
        using GgufFile file = Opening.Open(RawGguf.Sample(version), events);
        Assert.Equal((int)version, file.Version);
        Assert.Empty(events.Events);
        GgufMetadata metadata = file.Metadata;
        Assert.Equal(GgufValue.Scalar((byte)200), metadata.Find("n.u8"));
        Assert.Equal(GgufValue.Scalar((sbyte)-2), metadata.Find("n.i8"));
        Assert.Equal(GgufValue.Scalar((ushort)60000), metadata.Find("n.u16"));
        Assert.Equal(GgufValue.Scalar(short.MinValue), metadata.Find("n.i16"));
        Assert.Equal(GgufValue.Scalar(4_000_000_000u), metadata.Find("n.u32"));
        Assert.Equal(GgufValue.Scalar(-1), metadata.Find("n.i32"));
        Assert.Equal(GgufValue.Scalar(1.5f), metadata.Find("n.f32"));
        Assert.Equal(GgufValue.Scalar(true), metadata.Find("n.bool"));
        Assert.Equal(GgufValue.Scalar(ulong.MaxValue), metadata.Find("n.u64"));
        Assert.Equal(GgufValue.Scalar(long.MinValue), metadata.Find("n.i64"));
        Assert.Equal(GgufValue.Scalar(-0.125), metadata.Find("n.f64"));
        Assert.Equal(GgufValue.StringArray(["a", "", "\u0120the"]), metadata.Find("tokens"));
        Assert.Equal(GgufValue.Array([1, 3, 5]), metadata.Find("types"));
        Assert.Equal(GgufValue.Array([true, false, true]), metadata.Find("flags"));

        Assert.Equal([new Shape(5, 3), new Shape(7, 0), new Shape(9)], file.Tensors.Select(tensor => tensor.Shape));
        Assert.Equal([0, 64, 64], file.Tensors.Select(tensor => tensor.ByteOffset - file.Parts[0].DataOffset));
        byte[] second = new byte[3];
        file.ReadRaw(file.Tensors[2], 15, second);
        Assert.Equal([80, 81, 82], second);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.ReadRaw(file.Tensors[2], 16, new byte[3]));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.ReadRaw(file.Tensors[2], -1, new byte[1]));
    }

    [Fact]
    public void Arrays_of_arrays_are_read()
    {
        RawGguf raw = new RawGguf().Key("x", 9, (w, f) =>
        {
            RawGguf.ArrayHead(w, f, 9, 3);
            RawGguf.ArrayHead(w, f + "[0]", 5, 2);
            w.Number("a", 7, 4);
            w.Number("b", 0xffff_ffff, 4);
            RawGguf.ArrayHead(w, f + "[1]", 8, 1);
            w.Text("c", "hi"u8);
            RawGguf.ArrayHead(w, f + "[2]", 9, 1);
            RawGguf.ArrayHead(w, f + "[2][0]", 6, 0);
        });
        using GgufFile file = Opening.Open(raw);
        GgufValue nested = file.Metadata.Find("x")!;
        Assert.Equal(GgufValue.Nested([GgufValue.Array([7, -1]), GgufValue.StringArray(["hi"]), GgufValue.Nested([GgufValue.Array<float>([])])]), nested);
        Assert.Equal(3, nested.Items.Count);
        Assert.Equal("Array[3]", nested.ToString());
    }

    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    [InlineData(4096)]
    public void A_custom_alignment_is_honoured(int alignment)
    {
        using GgufFile file = Opening.Open(RawGguf.Sample().Align((ulong)alignment));
        Assert.Equal(alignment, file.Alignment);
        Assert.All(file.Tensors, tensor => Assert.Equal(0, tensor.ByteOffset % alignment));
        byte[] first = new byte[2];
        file.ReadRaw(file.Tensors[0], 0, first);
        Assert.Equal([1, 2], first);
    }

    [Fact]
    public void A_string_that_is_not_utf8_keeps_its_bytes_and_one_event_tells_of_all()
    {
        byte[] bad = [0x61, 0xff, 0xfe];
        EventLog events = new();
        using GgufFile file = Opening.Open(new RawGguf().Text("a", bad).Text("b", "fine").Text("c", bad), events);
        Assert.Equal(bad, file.Metadata.Find("a")!.GetUtf8().ToArray());
        Assert.Equal("a\ufffd\ufffd", file.Metadata.Find("a")!.GetString());
        QuantEvent only = Assert.Single(events.Events);
        Assert.Equal("gguf-string-not-utf8", only.Code);
        Assert.StartsWith("model.gguf: 2 strings", only.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Listing_goes_on_behind_an_unknown_type()
    {
        RawGguf raw = new RawGguf().Tensor("known", 0, 8).Tensor("unknown", 137, 256).Tensor("later", 0, 8);
        raw.Tensors[2] = raw.Tensors[2] with { Offset = 256 };
        GgufPart part = Assert.Single(Opening.Inspect(raw));
        Assert.Equal([0, 137, 0], part.Tensors.Select(tensor => tensor.TypeId));
        Assert.Equal([0, 32, 256], part.Tensors.Select(tensor => tensor.ByteOffset - part.DataOffset));
        QuantException error = Assert.Throws<QuantException>(() => Opening.Open(raw));
        Assert.Equal(("GG-46", ErrorKind.Unsupported, "unknown", "type 137"), (error.Rule!.Id, error.Kind, error.Tensor, error.Found));

        raw.Tensors[2] = raw.Tensors[2] with { Offset = 0 };
        Assert.Equal("GG-48", Assert.Throws<QuantException>(() => Opening.Inspect(raw)).Rule!.Id);
        raw.Tensors[2] = raw.Tensors[2] with { Offset = 1 << 20 };
        Assert.Equal("GG-49", Assert.Throws<QuantException>(() => Opening.Inspect(raw)).Rule!.Id);
        raw.Tensors[2] = raw.Tensors[2] with { Type = 138, Offset = 1 << 20 };
        Assert.Equal("GG-49", Assert.Throws<QuantException>(() => Opening.Inspect(raw)).Rule!.Id);
    }

    [Fact]
    public void Bytes_after_the_last_tensor_are_an_event()
    {
        EventLog events = new();
        Opening.Open(RawGguf.Sample().With(raw => raw.ExtraBytes = 5), events).Dispose();
        QuantEvent only = Assert.Single(events.Events);
        Assert.Equal("gguf-trailing-bytes", only.Code);
        Assert.Contains("5 bytes", only.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Limits_can_be_raised_and_lowered()
    {
        byte[] bytes = RawGguf.Sample().Build();
        Refuse("GG-33", new Limits { TensorCount = 2 });
        Refuse("GG-38", new Limits { StringBytes = 4 });
        Refuse("GG-39", new Limits { ArrayElements = 2 });
        Refuse("GG-43", new Limits { GgufNameBytes = 16 }, ErrorKind.InvalidInput);
        Refuse("GG-44", new Limits { GgufDimensions = 1 }, ErrorKind.InvalidInput);
        byte[] longName = RawGguf.Sample().Tensor(new string('n', 200), 0, 1).Build();
        using GgufFile file = GgufFile.Open(new MemoryReadFile("m", longName), new ReadOptions { Limits = new Limits { GgufNameBytes = 200 } });
        Assert.Equal(200, file.Tensors[3].Name.Length);

        void Refuse(string rule, Limits limits, ErrorKind kind = ErrorKind.Resource)
        {
            QuantException error = Assert.Throws<QuantException>(() => GgufFile.Open(new MemoryReadFile("m", bytes), new ReadOptions { Limits = limits }));
            Assert.Equal((rule, kind), (error.Rule!.Id, error.Kind));
        }
    }

    [Fact]
    public void Offsets_beyond_4_GiB_are_read_and_the_header_alone_is_touched_when_opening()
    {
        const long Large = 5L << 30;
        (byte[] header, long dataLength) = new RawGguf().Tensor("large", 24, (ulong)Large).Tensor("small", 0, 4).BuildHeader();
        SparseFile sparse = new(header, header.Length + dataLength);
        using GgufFile file = GgufFile.Open(sparse, new ReadOptions());
        Assert.InRange(sparse.FurthestRead, 0, 1 << 20);
        Assert.Equal(header.Length + Large, file.Tensors[1].ByteOffset);
        byte[] bytes = new byte[16];
        file.ReadRaw(file.Tensors[1], 0, bytes);
        Assert.Equal(SparseFile.ByteAt(header.Length + Large + 15), bytes[15]);
        file.ReadRaw(file.Tensors[0], Large - 16, bytes);
        Assert.Equal(SparseFile.ByteAt(header.Length + Large - 16), bytes[0]);
    }

    [Fact]
    public void Two_tensors_whose_sizes_wrap_together_are_refused()
    {
        const ulong Large = 0x7FFF_FFFF_FFFF_FFC0;
        RawGguf raw = new RawGguf().Tensor("a", 24, Large).Tensor("b", 24, Large);
        Assert.Equal("GG-49", Assert.Throws<QuantException>(() => Opening.Open(raw.BuildHeader().Header)).Rule!.Id);
    }

    [Fact]
    public void Opening_real_files_turns_what_the_system_says_into_typed_errors()
    {
        string folder = Directory.CreateTempSubdirectory().FullName;
        try
        {
            string path = Path.Combine(folder, "m.gguf");
            QuantException missing = Assert.Throws<QuantException>(() => GgufFile.Open(DiskFileLayer.Instance, path, new ReadOptions()));
            Assert.Equal((ErrorKind.InvalidInput, path), (missing.Kind, missing.Path));
            QuantException notAFile = Assert.Throws<QuantException>(() => GgufFile.Open(DiskFileLayer.Instance, folder, new ReadOptions()));
            Assert.Equal(folder, notAFile.Path);
            File.WriteAllBytes(path, RawGguf.Sample().Build());
            using GgufFile file = GgufFile.Open(DiskFileLayer.Instance, path, new ReadOptions());
            Assert.Equal(3, file.Tensors.Count);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Names_from_files_are_escaped_in_messages()
    {
        QuantException error = Assert.Throws<QuantException>(() => Opening.Open(RawGguf.Sample().Tensor("\u001b[31mred", 99, 1)));
        Assert.DoesNotContain('\u001b', error.Message);
        EventLog events = new();
        Opening.Open(new RawGguf().Number("\u001b[31m", 4, 1, 4), events).Dispose();
        Assert.DoesNotContain('\u001b', Assert.Single(events.Events).Message);
    }

    private sealed class SparseFile(byte[] header, long length) : IReadFile
    {
        public string Path => "sparse.gguf";
        public long Length => length;
        public long FurthestRead { get; private set; }

        public static byte ByteAt(long offset) => (byte)((offset * 31) >> 4);

        public int Read(long byteOffset, Span<byte> destination)
        {
            int count = (int)Math.Min(destination.Length, length - byteOffset);
            for (int i = 0; i < count; i++) destination[i] = byteOffset + i < header.Length ? header[byteOffset + i] : ByteAt(byteOffset + i);
            FurthestRead = Math.Max(FurthestRead, byteOffset + count);
            return count;
        }

        public void Dispose()
        {
        }
    }
}
