using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace Qwen2Quant.Tests.Safetensors;

/// <summary>A valid tiny safetensors file in pieces, each of which a test may break. Texts are JSON as it will stand in the file.</summary>
internal sealed class Skeleton
{
    public sealed class Entry(string name, string dtype, string shape, string begin, string end)
    {
        public string Name { get; set; } = $"\"{name}\"";
        public string Dtype { get; set; } = $"\"{dtype}\"";
        public string Shape { get; set; } = shape;
        public string Begin { get; set; } = begin;
        public string End { get; set; } = end;

        /// <summary>The whole value, when it is not the usual object.</summary>
        public string? Value { get; set; }

        /// <summary>More members, with their leading comma.</summary>
        public string Extra { get; set; } = "";

        public override string ToString() =>
            $"{Name}:{Value ?? $$"""{"dtype":{{Dtype}},"shape":{{Shape}},"data_offsets":[{{Begin}},{{End}}]{{Extra}}}"""}";
    }

    public string? Metadata { get; set; } = """{"format":"pt"}""";

    public List<Entry> Entries { get; } =
    [
        new Entry("a", "F32", "[2,2]", "0", "16"),
        new Entry("b", "BF16", "[4]", "16", "24"),
        new Entry("c", "U8", "[3]", "24", "27"),
    ];

    /// <summary>The header, when it is not what the other pieces say.</summary>
    public string? Header { get; set; }

    /// <summary>Bytes between the header's object and its end.</summary>
    public string Padding { get; set; } = "";

    public int DataBytes { get; set; } = 27;

    /// <summary>The length field, when it is not the header's length.</summary>
    public ulong? Length { get; set; }

    public static byte[] Broken(Action<Skeleton> change)
    {
        Skeleton skeleton = new();
        change(skeleton);
        return skeleton.Build();
    }

    public byte[] Build()
    {
        IEnumerable<string> members = Entries.Select(static entry => entry.ToString());
        if (Metadata is not null) members = members.Prepend($"\"__metadata__\":{Metadata}");
        string text = (Header ?? $"{{{string.Join(',', members)}}}") + Padding;
        return Join(Encoding.UTF8.GetBytes(text), DataBytes, Length);
    }

    public static byte[] Join(byte[] header, int dataBytes, ulong? length = null)
    {
        byte[] file = new byte[8 + header.Length + dataBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(file, length ?? (ulong)header.Length);
        header.CopyTo(file, 8);
        for (int i = 0; i < dataBytes; i++) file[8 + header.Length + i] = (byte)(i * 7);
        return file;
    }

    public static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);
}
