using System.Text;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>A named field of a built file, for tests that break one.</summary>
internal sealed record RawField(string Name, int Offset, int Length);

/// <summary>Bytes of a header in the making; counts take 4 bytes in version 1, 8 after it.</summary>
internal sealed class RawWriter(uint version)
{
    private readonly MemoryStream _bytes = new();

    public List<RawField> Fields { get; } = [];

    public int Length => (int)_bytes.Length;

    public void Count(string field, ulong value) => Number(field, value, version == 1 ? 4 : 8);

    public void Number(string field, ulong value, int byteCount)
    {
        Fields.Add(new RawField(field, Length, byteCount));
        for (int i = 0; i < byteCount; i++) _bytes.WriteByte((byte)(value >> (8 * i)));
    }

    public void Bytes(string field, ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > 0) Fields.Add(new RawField(field, Length, bytes.Length));
        _bytes.Write(bytes);
    }

    public void Text(string field, ReadOnlySpan<byte> bytes, ulong? length = null)
    {
        Count(field + ".length", length ?? (ulong)bytes.Length);
        Bytes(field + ".bytes", bytes);
    }

    public byte[] ToArray() => _bytes.ToArray();
}

internal sealed record RawKey(byte[] Name, uint Type, Action<RawWriter, string> Value)
{
    public ulong? NameLength { get; init; }
}

/// <param name="Dimensions">As stored: fastest first.</param>
internal sealed record RawTensorInfo(byte[] Name, uint Type, ulong[] Dimensions)
{
    public ulong? NameLength { get; init; }
    public uint? Rank { get; init; }
    public ulong? Offset { get; init; }
}

/// <summary>A GGUF file byte by byte, right unless told otherwise. Shares nothing with the product's writer.</summary>
internal sealed class RawGguf
{
    private static readonly Dictionary<uint, (ulong Values, ulong Bytes)> Sizes = new()
    {
        [0] = (1, 4), [1] = (1, 2), [8] = (32, 34), [24] = (1, 1), [25] = (1, 2), [26] = (1, 4), [27] = (1, 8), [28] = (1, 8), [30] = (1, 2),
    };

    public byte[] Magic { get; set; } = "GGUF"u8.ToArray();
    public uint Version { get; set; } = 3;
    public ulong? TensorCount { get; set; }
    public ulong? KeyCount { get; set; }
    public List<RawKey> Keys { get; } = [];
    public List<RawTensorInfo> Tensors { get; } = [];

    /// <summary>What offsets and lengths are padded to.</summary>
    public ulong Alignment { get; set; } = 32;

    /// <summary>Bytes added to (or taken from) the end.</summary>
    public int ExtraBytes { get; set; }

    public List<RawField> Fields { get; private set; } = [];

    /// <summary>A small file with every value type, two plain tensors and an empty one.</summary>
    public static RawGguf Sample(uint version = 3)
    {
        RawGguf raw = new() { Version = version };
        raw.Text("general.architecture", "qwen2").Number("n.u8", 0, 200, 1).Number("n.i8", 1, 0xfe, 1).Number("n.u16", 2, 60000, 2);
        raw.Number("n.i16", 3, 0x8000, 2).Number("n.u32", 4, 4_000_000_000, 4).Number("n.i32", 5, 0xffff_ffff, 4);
        raw.Number("n.f32", 6, BitConverter.SingleToUInt32Bits(1.5f), 4).Number("n.bool", 7, 1, 1);
        raw.Number("n.u64", 10, ulong.MaxValue, 8).Number("n.i64", 11, 1UL << 63, 8).Number("n.f64", 12, BitConverter.DoubleToUInt64Bits(-0.125), 8);
        raw.Texts("tokens", "a", "", "\u0120the").Numbers("types", 5, 4, 1, 3, 5).Numbers("flags", 7, 1, 1, 0, 1);
        return raw.Tensor("token_embd.weight", 0, 3, 5).Tensor("empty.weight", 1, 0, 7).Tensor("blk.0.attn_q.bias", 1, 9);
    }

    public RawGguf Key(string name, uint type, Action<RawWriter, string> value)
    {
        Keys.Add(new RawKey(Encoding.UTF8.GetBytes(name), type, value));
        return this;
    }

    public RawGguf Number(string name, uint type, ulong value, int byteCount) => Key(name, type, (w, field) => w.Number(field, value, byteCount));

    public RawGguf Text(string name, string value) => Text(name, Encoding.UTF8.GetBytes(value));

    public RawGguf Text(string name, byte[] value) => Key(name, 8, (w, field) => w.Text(field, value));

    public RawGguf Texts(string name, params string[] values) => Key(name, 9, (w, field) =>
    {
        ArrayHead(w, field, 8, (ulong)values.Length);
        for (int i = 0; i < values.Length; i++) w.Text($"{field}[{i}]", Encoding.UTF8.GetBytes(values[i]));
    });

    public RawGguf Numbers(string name, uint elementType, int byteCount, params ulong[] values) => Key(name, 9, (w, field) =>
    {
        ArrayHead(w, field, elementType, (ulong)values.Length);
        for (int i = 0; i < values.Length; i++) w.Number($"{field}[{i}]", values[i], byteCount);
    });

    public RawGguf Align(ulong alignment)
    {
        Alignment = alignment;
        return Number("general.alignment", 4, alignment, 4);
    }

    public RawGguf Tensor(string name, uint type, params ulong[] dimensions)
    {
        Tensors.Add(new RawTensorInfo(Encoding.UTF8.GetBytes(name), type, dimensions));
        return this;
    }

    public RawGguf With(Action<RawGguf> change)
    {
        change(this);
        return this;
    }

    /// <summary>Replaces the last tensor.</summary>
    public RawGguf LastTensor(Func<RawTensorInfo, RawTensorInfo> change)
    {
        Tensors[^1] = change(Tensors[^1]);
        return this;
    }

    public static void ArrayHead(RawWriter writer, string field, uint elementType, ulong count)
    {
        writer.Number(field + ".elementType", elementType, 4);
        writer.Count(field + ".count", count);
    }

    /// <summary>Header bytes, zero padding included, and the length of the data section.</summary>
    public (byte[] Header, long DataLength) BuildHeader()
    {
        RawWriter writer = new(Version);
        writer.Bytes("magic", Magic);
        writer.Number("version", Version, 4);
        writer.Count("tensorCount", TensorCount ?? (ulong)Tensors.Count);
        writer.Count("keyCount", KeyCount ?? (ulong)Keys.Count);
        foreach (RawKey key in Keys)
        {
            string field = Encoding.Latin1.GetString(key.Name);
            writer.Text(field + ".key", key.Name, key.NameLength);
            writer.Number(field + ".type", key.Type, 4);
            key.Value(writer, field);
        }

        ulong offset = 0;
        foreach (RawTensorInfo tensor in Tensors)
        {
            string field = Encoding.Latin1.GetString(tensor.Name);
            writer.Text(field + ".name", tensor.Name, tensor.NameLength);
            writer.Number(field + ".rank", tensor.Rank ?? (uint)tensor.Dimensions.Length, 4);
            for (int i = 0; i < tensor.Dimensions.Length; i++) writer.Count($"{field}.ne{i}", tensor.Dimensions[i]);
            writer.Number(field + ".type", tensor.Type, 4);
            writer.Number(field + ".offset", tensor.Offset ?? offset, 8);
            (ulong values, ulong bytes) = Sizes.GetValueOrDefault(tensor.Type, (1UL, 1UL));
            offset = Pad(offset + (tensor.Dimensions.Aggregate(1UL, (a, b) => unchecked(a * b)) / values * bytes));
        }

        Fields = writer.Fields;
        byte[] header = writer.ToArray();
        Array.Resize(ref header, (int)Pad((ulong)header.Length));
        return (header, (long)offset);
    }

    /// <summary>The whole file; data byte i is i + 1 modulo 251, so that no two tensors look alike.</summary>
    public byte[] Build()
    {
        (byte[] header, long dataLength) = BuildHeader();
        byte[] file = new byte[header.Length + dataLength + ExtraBytes];
        header.AsSpan(0, Math.Min(header.Length, file.Length)).CopyTo(file);
        for (int i = header.Length; i < file.Length; i++) file[i] = (byte)((i - header.Length + 1) % 251);
        return file;
    }

    private ulong Pad(ulong value) => unchecked(value + Alignment - 1) / Alignment * Alignment;
}
