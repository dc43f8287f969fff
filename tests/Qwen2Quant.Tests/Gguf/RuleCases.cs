using System.Text;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>What must happen to a file: refused by exactly one rule, read with an event that names it, or read without.</summary>
internal enum Outcome
{
    Refused,
    Noted,
    Accepted,
}

internal sealed record RuleCase(string Rule, Outcome Outcome, string Name, Func<MemoryFolder> Files, string Path = "model.gguf")
{
    public override string ToString() => $"{Rule} {Outcome} {Name}";
}

/// <summary>For every rule files that break only it, and files that just satisfy it.</summary>
internal static class RuleCases
{
    private const ulong Huge = 1UL << 63;

    public static IReadOnlyList<RuleCase> All { get; } =
    [
        Refused("GG-31", "empty file", () => []),
        Refused("GG-31", "three bytes", () => "GGU"u8.ToArray()),
        Refused("GG-31", "other magic", Sample(raw => raw.Magic = "FUGG"u8.ToArray())),
        Refused("GG-31", "GGJT", Sample(raw => raw.Magic = "tjgg"u8.ToArray())),
        Accepted("GG-31", "GGUF", Sample(_ => { })),

        Refused("GG-32", "no version", () => "GGUF\x3\0"u8.ToArray()),
        Refused("GG-32", "version 0", Sample(raw => raw.Version = 0)),
        Refused("GG-32", "version 4", Sample(raw => raw.Version = 4)),
        Refused("GG-32", "big-endian", Sample(raw => raw.Version = 0x03000000)),
        Accepted("GG-32", "version 1", () => RawGguf.Sample(1).Build()),
        Accepted("GG-32", "version 2", () => RawGguf.Sample(2).Build()),

        Refused("GG-33", "2^63 tensors", Sample(raw => raw.TensorCount = Huge)),
        Refused("GG-33", "2^64-1 keys", Sample(raw => raw.KeyCount = ulong.MaxValue)),
        Refused("GG-33", "more tensors than bytes", Sample(raw => raw.TensorCount = 1000)),
        Refused("GG-33", "more keys than bytes", Sample(raw => raw.KeyCount = 1000)),
        Refused("GG-33", "cut within a value", () => new RawGguf { KeyCount = 1 }.Number("a", 4, 7, 4).Build()[..(24 + 8 + 1 + 4 + 2)]),
        Accepted("GG-33", "nothing at all", () => new RawGguf().Build()[..24]),
        Accepted("GG-33", "smallest key", () => new RawGguf().Number("a", 0, 7, 1).Build()[..(24 + 14)]),

        Refused("GG-34", "empty key", Sample(raw => raw.Number("", 4, 1, 4))),
        Refused("GG-34", "65536 bytes", Sample(raw => raw.Number(new string('k', 65536), 4, 1, 4))),
        Refused("GG-34", "longer than the file", Sample(raw => raw.Keys[^1] = raw.Keys[^1] with { NameLength = 60_000 })),
        Refused("GG-34", "2^64-1", Sample(raw => raw.Keys[0] = raw.Keys[0] with { NameLength = ulong.MaxValue })),
        Accepted("GG-34", "65535 bytes", Sample(raw => raw.Number(new string('k', 65535), 4, 1, 4))),

        Refused("GG-35", "not UTF-8", Sample(raw => raw.Keys.Add(new RawKey([0x6b, 0xff], 0, (w, f) => w.Number(f, 1, 1))))),
        Noted("GG-35", "upper case", Sample(raw => raw.Number("General.Name", 4, 1, 4))),
        Noted("GG-35", "two dots", Sample(raw => raw.Number("general..name", 4, 1, 4))),
        Noted("GG-35", "not ASCII", Sample(raw => raw.Number("general.näme", 4, 1, 4))),
        Accepted("GG-35", "digits and underscores", Sample(raw => raw.Number("general.base_model.0.x1", 4, 1, 4))),

        Refused("GG-36", "key twice", Sample(raw => raw.Number("n.u8", 0, 1, 1))),
        Accepted("GG-36", "keys that differ in the last byte", Sample(raw => raw.Number("n.u9", 0, 1, 1))),

        Refused("GG-37", "type 13", Sample(raw => raw.Number("x", 13, 1, 4))),
        Refused("GG-37", "type 2^32-1", Sample(raw => raw.Number("x", uint.MaxValue, 1, 4))),
        Refused("GG-37", "element type 13", Sample(raw => raw.Numbers("x", 13, 1, 1))),
        Refused("GG-37", "boolean 2", Sample(raw => raw.Number("x", 7, 2, 1))),
        Refused("GG-37", "boolean 255 in an array", Sample(raw => raw.Numbers("x", 7, 1, 0, 1, 255))),
        Accepted("GG-37", "type 12", Sample(raw => raw.Number("x", 12, 1, 8))),

        Refused("GG-38", "2^64-1 bytes", Sample(raw => raw.Key("x", 8, (w, f) => w.Count(f, ulong.MaxValue)))),
        Refused("GG-38", "longer than the file", Sample(raw => raw.Key("x", 8, (w, f) => w.Text(f, "abc"u8, 9999)))),
        Refused("GG-38", "longer than the limit", Sample(raw => raw.Text("x", new byte[(16 << 20) + 1]))),
        Refused("GG-38", "in an array", Sample(raw => raw.Key("x", 9, (w, f) =>
        {
            RawGguf.ArrayHead(w, f, 8, 1);
            w.Text(f, "abc"u8, 1UL << 40);
        }))),
        Noted("GG-38", "not UTF-8", Sample(raw => raw.Text("x", [0xc3, 0x28]))),
        Accepted("GG-38", "as long as the limit", Sample(raw => raw.Text("x", Encoding.ASCII.GetBytes(new string('x', 16 << 20))))),
        Accepted("GG-38", "empty", Sample(raw => raw.Text("x", ""))),

        Refused("GG-39", "2^64-1 elements", Sample(raw => raw.Key("x", 9, (w, f) => RawGguf.ArrayHead(w, f, 0, ulong.MaxValue)))),
        Refused("GG-39", "wraps to few bytes", Sample(raw => raw.Key("x", 9, (w, f) => RawGguf.ArrayHead(w, f, 10, (1UL << 61) + 1)))),
        Refused("GG-39", "more strings than lengths fit", Sample(raw => raw.Key("x", 9, (w, f) => RawGguf.ArrayHead(w, f, 8, 1000)))),
        Refused("GG-39", "more arrays than heads fit", Sample(raw => raw.Key("x", 9, (w, f) => RawGguf.ArrayHead(w, f, 9, 1000)))),
        Refused("GG-39", "more than the limit", () => new RawGguf().Numbers("x", 0, 1).With(raw => raw.Keys[0] = new RawKey("x"u8.ToArray(), 9, (w, f) =>
        {
            RawGguf.ArrayHead(w, f, 0, (64 << 20) + 1);
            w.Bytes(f, new byte[(64 << 20) + 1]);
        })).Build()),
        Accepted("GG-39", "up to the last byte", () => new RawGguf().Numbers("x", 0, 1, 1, 2, 3, 4, 5).Build()[..(24 + 8 + 1 + 4 + 4 + 8 + 5)]),

        Refused("GG-40", "nine levels", Sample(raw => raw.Key("x", 9, (w, f) => Nest(w, f, 9)))),
        Accepted("GG-40", "eight levels", Sample(raw => raw.Key("x", 9, (w, f) => Nest(w, f, 8)))),

        Refused("GG-41", "0", Sample(raw => raw.Number("general.alignment", 4, 0, 4))),
        Refused("GG-41", "3", Sample(raw => raw.Number("general.alignment", 4, 3, 4))),
        Refused("GG-41", "2^31", Sample(raw => raw.Number("general.alignment", 4, 1UL << 31, 4))),
        Refused("GG-41", "UINT64", Sample(raw => raw.Number("general.alignment", 10, 32, 8))),
        Refused("GG-41", "INT32", Sample(raw => raw.Number("general.alignment", 5, 32, 4))),
        Refused("GG-41", "string", Sample(raw => raw.Text("general.alignment", "32"))),
        Accepted("GG-41", "1", Sample(raw => raw.Align(1))),
        Accepted("GG-41", "2 MiB", Sample(raw => raw.Align(2 << 20))),

        Refused("GG-42", "offset for 32 under 4096", Sample(raw => raw.Align(4096).LastTensor(tensor => tensor with { Offset = 64 }))),
        Refused("GG-42", "offset for 1 under 32", Sample(raw => raw.LastTensor(tensor => tensor with { Offset = 60 }))),
        Accepted("GG-42", "8", Sample(raw => raw.Align(8))),
        Accepted("GG-42", "4096", Sample(raw => raw.Align(4096))),

        Refused("GG-43", "64 bytes", Sample(raw => raw.Tensor(new string('n', 64), 0, 1))),
        Refused("GG-43", "empty", Sample(raw => raw.Tensor("", 0, 1))),
        Refused("GG-43", "twice", Sample(raw => raw.Tensor("token_embd.weight", 0, 1))),
        Refused("GG-43", "NUL", Sample(raw => raw.Tensor("token\0embd", 0, 1))),
        Refused("GG-43", "not UTF-8", Sample(raw => raw.Tensors.Add(new RawTensorInfo([0x80], 0, [1])))),
        Refused("GG-43", "2^64-1", Sample(raw => raw.LastTensor(tensor => tensor with { NameLength = ulong.MaxValue }))),
        Accepted("GG-43", "63 bytes", Sample(raw => raw.Tensor(new string('n', 63), 0, 1))),

        Refused("GG-44", "none", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [] }))),
        Refused("GG-44", "five", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [9, 1, 1, 1, 1] }))),
        Refused("GG-44", "2^32-1", Sample(raw => raw.LastTensor(tensor => tensor with { Rank = uint.MaxValue }))),
        Accepted("GG-44", "four, three of them 1", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [9, 1, 1, 1] }))),

        Refused("GG-45", "2^63", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [Huge] }))),
        Refused("GG-45", "product wraps to 0", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [1UL << 32, 1UL << 32] }))),
        Refused("GG-45", "product wraps beside a zero", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [1UL << 40, 0, 1UL << 40] }))),
        Accepted("GG-45", "zero", Sample(raw => raw.LastTensor(tensor => tensor with { Dimensions = [0, 4] }))),

        Refused("GG-46", "43", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 43 }))),
        Refused("GG-46", "Q4_2", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 4 }))),
        Refused("GG-46", "Q4_3", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 5 }))),
        Refused("GG-46", "2^32-1", Sample(raw => raw.LastTensor(tensor => tensor with { Type = uint.MaxValue }))),
        Accepted("GG-46", "BF16", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 30 }))),

        Refused("GG-47", "33 values of Q8_0", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 8, Dimensions = [33] }))),
        Refused("GG-47", "64 values in rows of 16", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 8, Dimensions = [16, 4] }))),
        Accepted("GG-47", "64 values of Q8_0", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 8, Dimensions = [64] }))),

        Refused("GG-48", "gap", Sample(raw => raw.LastTensor(tensor => tensor with { Offset = 96 }))),
        Refused("GG-48", "overlap", Sample(raw => raw.LastTensor(tensor => tensor with { Offset = 32 }))),
        Refused("GG-48", "first not at 0", Sample(raw => raw.Tensors[0] = raw.Tensors[0] with { Offset = 32 })),
        Accepted("GG-48", "the padded sum", Sample(raw => raw.LastTensor(tensor => tensor with { Offset = 64 }))),

        Refused("GG-49", "one byte short", Sample(raw => raw.Align(1).ExtraBytes = -1)),
        Refused("GG-49", "offset 2^63", Sample(raw => raw.LastTensor(tensor => tensor with { Offset = Huge }))),
        Refused("GG-49", "size overflows", Sample(raw => raw.LastTensor(tensor => tensor with { Type = 27, Dimensions = [1UL << 61] }))),
        Refused("GG-49", "end overflows", () => RawGguf.Sample().LastTensor(tensor => tensor with { Type = 24, Dimensions = [long.MaxValue] }).BuildHeader().Header),
        Refused("GG-49", "padding overflows", () => new RawGguf().Tensor("a", 24, long.MaxValue - 8).BuildHeader().Header),
        Accepted("GG-49", "to the last byte", Sample(raw => raw.Align(1))),

        Noted("GG-50", "no padding", Sample(raw => raw.ExtraBytes = -14)),
        Noted("GG-50", "one byte of padding missing", Sample(raw => raw.ExtraBytes = -1)),
        Accepted("GG-50", "all padding", Sample(_ => { })),

        .. SplitCases.All,

        Noted("GG-55", "missing", Sample(raw => raw.Tensor("q", 8, 32))),
        Accepted("GG-55", "there", Sample(raw => raw.Tensor("q", 8, 32).Number("general.quantization_version", 4, 2, 4))),
        Accepted("GG-55", "nothing quantized", Sample(_ => { })),
    ];

    private static void Nest(RawWriter writer, string field, int levels)
    {
        for (int level = 1; level < levels; level++) RawGguf.ArrayHead(writer, $"{field}({level})", 9, 1);
        RawGguf.ArrayHead(writer, $"{field}({levels})", 0, 2);
        writer.Number(field + "[0]", 1, 1);
        writer.Number(field + "[1]", 2, 1);
    }

    private static Func<byte[]> Sample(Action<RawGguf> change) => () => RawGguf.Sample().With(change).Build();

    private static RuleCase Refused(string rule, string name, Func<byte[]> build) => Case(rule, Outcome.Refused, name, build);

    private static RuleCase Noted(string rule, string name, Func<byte[]> build) => Case(rule, Outcome.Noted, name, build);

    private static RuleCase Accepted(string rule, string name, Func<byte[]> build) => Case(rule, Outcome.Accepted, name, build);

    private static RuleCase Case(string rule, Outcome outcome, string name, Func<byte[]> build) =>
        new(rule, outcome, name, () => new MemoryFolder { ["model.gguf"] = build() });
}
