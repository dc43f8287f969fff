using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Tests.Rules;
using static Qwen2Quant.Formats.Safetensors.SafetensorsRules;

namespace Qwen2Quant.Tests.Safetensors;

/// <summary>For each rule of one file: a file that breaks only it, and one that just satisfies it.</summary>
public static class SafetensorsRuleCases
{
    private const string Max = "9223372036854775807";

    public static IReadOnlyList<RuleCase> All { get; } =
    [
        Refuses(NotEmpty, "no bytes", []),
        Accepts(NotEmpty, "the skeleton", static _ => { }),
        Refuses(HasLengthField, "1 byte", [2]),
        Refuses(HasLengthField, "7 bytes", [2, 0, 0, 0, 0, 0, 0]),
        Accepts(HasLengthField, "the shortest file", static s => (s.Header, s.DataBytes) = ("{}", 0)),
        Refuses(HeaderNotEmpty, "length 0", new byte[8]),
        Accepts(HeaderNotEmpty, "length 2", static s => (s.Header, s.DataBytes) = ("{}", 0)),
        Refuses(HeaderWithinLimit, "100,000,001", static s => s.Length = 100_000_001),
        Refuses(HeaderWithinLimit, "2^63 - 1", static s => s.Length = long.MaxValue),
        Accepts(HeaderWithinLimit, "exactly a lowered limit", static () => Open(new Skeleton().Build(), new Limits { HeaderBytes = new Skeleton().Build().Length - 8 - 27 })),
        Refuses(HeaderLengthUnsigned, "2^63", static s => s.Length = 1UL << 63),
        Refuses(HeaderLengthUnsigned, "2^64 - 1", static s => s.Length = ulong.MaxValue),
        Accepts(HeaderLengthUnsigned, "a small length", static _ => { }),
        Refuses(HeaderInFile, "one more than what remains", static s => (s.Header, s.DataBytes, s.Length) = ("{}", 0, 3)),
        Refuses(HeaderInFile, "the limit in a short file", static s => s.Length = 100_000_000),
        Accepts(HeaderInFile, "just what remains", static s => (s.Header, s.DataBytes, s.Length) = ("{}", 0, 2)),
        Accepts(LongestHeader, "100,000,000 bytes", static () => SafetensorsFile.Open(new FilledFile(Skeleton.Join("{}"u8.ToArray(), 0, 100_000_000), 100_000_008, (byte)' '), new ReadOptions())),
        Refuses(HeaderIsObject, "byte order mark", static s => s.Header = "\uFEFF{}"),
        Refuses(HeaderIsObject, "leading space", static s => (s.Header, s.DataBytes) = (" {}", 0)),
        Refuses(HeaderIsObject, "array", static s => (s.Header, s.DataBytes) = ("[]", 0)),
        Refuses(HeaderIsObject, "truncated object", static s => (s.Header, s.DataBytes) = ("{\"a\":", 0)),
        Refuses(HeaderIsObject, "trailing comma", static s => (s.Header, s.DataBytes) = ("{\"__metadata__\":{},}", 0)),
        Refuses(HeaderIsObject, "comment", static s => (s.Header, s.DataBytes) = ("{/**/}", 0)),
        Accepts(HeaderIsObject, "white space inside", static s => (s.Header, s.DataBytes) = ("{ \t\r\n}", 0)),
        Refuses(PaddedWithSpaces, "NUL", static s => s.Padding = "  \0"),
        Refuses(PaddedWithSpaces, "line feed", static s => s.Padding = "\n"),
        Refuses(PaddedWithSpaces, "second object", static s => s.Padding = "{}"),
        Accepts(PaddedWithSpaces, "spaces", static s => s.Padding = "         "),
        Refuses(HeaderIsUtf8, "a byte 0xff in a name", static () => Open(Patch(new Skeleton().Build(), "\"a\"", [(byte)'"', 0xff, (byte)'"']))),
        Refuses(HeaderIsUtf8, "an overlong slash in a name", static () => Open(Patch(Skeleton.Broken(static s => s.Entries[0].Name = "\"aa\""), "\"aa\"", [(byte)'"', 0xc0, 0xaf, (byte)'"']))),
        Refuses(HeaderIsUtf8, "a lone surrogate in a name", static s => s.Entries[0].Name = "\"\\ud800\""),
        Refuses(HeaderIsUtf8, "a lone surrogate in metadata", static s => s.Metadata = "{\"format\":\"\\udc00\"}"),
        Accepts(HeaderIsUtf8, "a surrogate pair, and the same in UTF-8", static s => (s.Entries[0].Name, s.Entries[1].Name) = ("\"\\ud83d\\ude00\"", "\"😀😀\"")),
        Refuses(HeaderDepth, "10,000 arrays", static s => s.Entries[0].Value = new string('[', 10_000) + new string(']', 10_000)),
        Refuses(HeaderDepth, "one level too deep", static () => Open(new Skeleton().Build(), new Limits { JsonDepth = 2 })),
        Accepts(HeaderDepth, "exactly the levels that the format has", static () => Open(new Skeleton().Build(), new Limits { JsonDepth = 3 })),
        Refuses(UniqueNames, "the same entry twice", static s => s.Entries[1].Name = "\"a\""),
        Refuses(UniqueNames, "the same name by escape", static s => s.Entries[1].Name = "\"\\u0061\""),
        Accepts(UniqueNames, "names that differ by case and by normal form", static s => (s.Entries[0].Name, s.Entries[1].Name, s.Entries[2].Name) = ("\"é\"", "\"e\u0301\"", "\"É\"")),
        Refuses(UniqueMembers, "shape twice", static s => s.Entries[0].Extra = ",\"shape\":[2,2]"),
        Refuses(UniqueMembers, "dtype twice, by escape", static s => s.Entries[0].Extra = ",\"\\u0064type\":\"F32\""),
        Accepts(UniqueMembers, "members in another order", static s => s.Entries[0].Value = """{"data_offsets":[0,16],"shape":[2,2],"dtype":"F32"}"""),
        Refuses(MetadataOfStrings, "a number", static s => s.Metadata = "{\"step\":1}"),
        Refuses(MetadataOfStrings, "null", static s => s.Metadata = "{\"step\":null}"),
        Refuses(MetadataOfStrings, "not an object", static s => s.Metadata = "\"pt\""),
        Refuses(MetadataOfStrings, "twice", static s => s.Metadata = "{},\"__metadata__\":{}"),
        Refuses(MetadataOfStrings, "a key twice", static s => s.Metadata = "{\"k\":\"1\",\"k\":\"1\"}"),
        Accepts(MetadataOfStrings, "none", static s => s.Metadata = null),
        Accepts(MetadataOfStrings, "empty", static s => s.Metadata = "{}"),
        Refuses(EntryMembers, "no dtype", static s => s.Entries[0].Value = """{"shape":[2,2],"data_offsets":[0,16]}"""),
        Refuses(EntryMembers, "no shape", static s => s.Entries[0].Value = """{"dtype":"F32","data_offsets":[0,16]}"""),
        Refuses(EntryMembers, "no offsets", static s => s.Entries[0].Value = """{"dtype":"F32","shape":[2,2]}"""),
        Refuses(EntryMembers, "an unknown member", static s => s.Entries[0].Extra = ",\"strides\":[2,1]"),
        Refuses(EntryMembers, "a number for dtype", static s => s.Entries[0].Dtype = "0"),
        Refuses(EntryMembers, "an entry that is an array", static s => s.Entries[0].Value = "[]"),
        Accepts(EntryMembers, "exactly the three", static _ => { }),
        RefusesRows(KnownDtype, "a future dtype", "\"F2\"", "[16]"),
        RefusesRows(KnownDtype, "the wrong case", "\"f32\"", "[4]"),
        RefusesRows(KnownDtype, "F4, which is listed only", "\"F4\"", "[32]"),
        Accepts(KnownDtype, "unknown dtypes are listed", static s => (s.Entries[0].Dtype, s.Entries[1].Dtype, s.Entries[2].Dtype) = ("\"f32\"", "\"\"", "\"Q7\\u001b[2J\"")),
        .. new[] { "-1", "1.0", "1e3", "\"2\"", "18446744073709551616", "9223372036854775808", "null", "true", "[2]", "-0" }
            .Select(static value => Refuses(WholeDimensions, $"dimension {value}", s => s.Entries[0].Shape = $"[2,{value}]")),
        Refuses(WholeDimensions, "nine dimensions", static s => s.Entries[0].Shape = "[2,2,1,1,1,1,1,1,1]", ErrorKind.Resource),
        Accepts(WholeDimensions, "eight dimensions", static s => s.Entries[0].Shape = "[2,2,1,1,1,1,1,1]"),
        Refuses(SizeWithinRange, "a product that wraps to 4 elements", static s => s.Entries[0].Shape = "[4194305,4194305,211106198978564]"),
        Refuses(SizeWithinRange, "a product that wraps to 0", static s => s.Entries[0].Shape = "[4294967296,4294967296]"),
        Refuses(SizeWithinRange, "bytes that wrap to 16", static s => s.Entries[0].Shape = "[4611686018427387908]"),
        Refuses(SizeWithinRange, "an overflow hidden by a zero", static s => s.Entries[0].Shape = $"[0,{Max},{Max}]"),
        Accepts(SizeWithinRange, "a huge dimension beside a zero", static s => (s.Entries[2].Shape, s.Entries[2].End, s.DataBytes) = ($"[0,{Max}]", "24", 24)),
        Refuses(EmptyTensorInOrder, "inside another tensor", static s => Empty(s, "8")),
        Refuses(EmptyTensorInOrder, "behind the data", static s => Empty(s, "28")),
        Accepts(EmptyTensorInOrder, "at the start", static s => Empty(s, "0")),
        Accepts(EmptyTensorInOrder, "between two tensors", static s => Empty(s, "16")),
        Accepts(EmptyTensorInOrder, "at the end, twice", static s => { Empty(s, "27"); s.Entries.Add(new("e", "F32", "[0,5]", "27", "27")); }),
        Accepts(Scalars, "shape []", static s => (s.Entries[0].Shape, s.Entries[0].Dtype, s.Entries[0].Begin, s.Entries[0].End) = ("[]", "\"C64\"", "0", "8"), static s => { s.Entries[1].Begin = "8"; s.Entries[1].Shape = "[8]"; }),
        Refuses(OrderedOffsets, "begin above end", static s => (s.Entries[0].Begin, s.Entries[0].End) = ("16", "0")),
        Refuses(OrderedOffsets, "a negative begin", static s => s.Entries[0].Begin = "-1"),
        Refuses(OrderedOffsets, "a fraction", static s => s.Entries[0].End = "16.0"),
        Refuses(OrderedOffsets, "one number", static s => s.Entries[0].Value = """{"dtype":"F32","shape":[2,2],"data_offsets":[16]}"""),
        Refuses(OrderedOffsets, "three numbers", static s => s.Entries[0].End = "16,16"),
        Accepts(OrderedOffsets, "begin equal to end", static s => Empty(s, "0")),
        Refuses(SizeMatches, "one byte short", static s => s.Entries[0].End = "15"),
        Refuses(SizeMatches, "another dtype", static s => s.Entries[0].Dtype = "\"F16\""),
        Refuses(SizeMatches, "half a byte", static s => (s.Entries[2].Dtype, s.Entries[2].Shape) = ("\"F4\"", "[5]")),
        Refuses(SizeMatches, "bytes without values, dtype unknown", static s => (s.Entries[2].Dtype, s.Entries[2].Shape) = ("\"f4\"", "[0]")),
        Refuses(SizeMatches, "values without bytes, dtype unknown", static s => Empty(s, "0", "[2]", "\"f4\"")),
        Accepts(SizeMatches, "whole bytes of F4 and F6", static s => (s.Entries[1].Dtype, s.Entries[1].Shape, s.Entries[2].Dtype, s.Entries[2].Shape) = ("\"F4\"", "[2,8]", "\"F6_E2M3\"", "[4]")),
        Refuses(NoOverlap, "the same bytes", static s => (s.Entries[1].Begin, s.Entries[1].End, s.Entries[1].Shape, s.DataBytes) = ("0", "16", "[8]", 19)),
        Refuses(NoOverlap, "one byte", static s => (s.Entries[2].Begin, s.Entries[2].End, s.DataBytes) = ("23", "26", 26)),
        Accepts(NoOverlap, "neighbours in any order of the header", static s => s.Entries.Reverse()),
        Refuses(NoHole, "one byte", static s => (s.Entries[2].Begin, s.Entries[2].End, s.DataBytes) = ("25", "28", 28)),
        Accepts(NoHole, "no gap where alignment would want one", static s => { s.Entries.Insert(0, new("z", "U8", "[1]", "0", "1")); Shift(s, 1); }),
        Refuses(FirstAtZero, "a byte before the first", static s => { Shift(s, 0); foreach (Skeleton.Entry e in s.Entries) Move(e, 1); s.DataBytes++; }),
        Accepts(FirstAtZero, "the only tensor at 0", static s => { s.Entries.RemoveRange(1, 2); s.DataBytes = 16; }),
        Refuses(NothingAfter, "one byte", static s => s.DataBytes = 28),
        Refuses(NothingAfter, "data without tensors", static s => s.Entries.Clear()),
        Accepts(NothingAfter, "no data without tensors", static s => { s.Entries.Clear(); s.DataBytes = 0; }),
        Refuses(DataInFile, "one byte short", static s => s.DataBytes = 26),
        Refuses(DataInFile, "an end near 2^63", static s => (s.Entries[2].Begin, s.Entries[2].End) = ("9223372036854775804", Max)),
        Accepts(DataInFile, "the last byte", static _ => { }),
        Refuses(NameWithinLimit, "one byte above the limit", static () => Open(Skeleton.Broken(static s => s.Entries[0].Name = $"\"{new string('n', (1 << 20) + 1)}\"")), ErrorKind.Resource),
        .. new[] { "", "__metadata", "../../etc/passwd", "/", "a b", "\\u0000\\u001b[31m\\n", new string('n', 1 << 20), string.Concat(Enumerable.Repeat("\\u006e", 1 << 20)) }
            .Select(static (name, i) => Accepts(NameWithinLimit, $"odd name {i}", s => s.Entries[0].Name = $"\"{name}\"")),
        Refuses(CountWithinLimit, "one tensor more", static () => Open(new Skeleton().Build(), new Limits { TensorCount = 2 }), ErrorKind.Resource),
        Accepts(CountWithinLimit, "exactly the limit", static () => Open(new Skeleton().Build(), new Limits { TensorCount = 3 })),
        .. Enumerable.Range(0, 8).Select(static i => Accepts(UnalignedData, $"{i} more bytes of header", s => s.Padding = new string(' ', i))),
    ];

    public static SafetensorsFile Open(byte[] bytes, Limits? limits = null) =>
        SafetensorsFile.Open(new MemoryReadFile("test.safetensors", bytes), new ReadOptions { Limits = limits ?? Limits.Default });

    private static RuleCase Refuses(Rule rule, string name, byte[] file) => Refuses(rule, name, () => Open(file));

    private static RuleCase Refuses(Rule rule, string name, Func<object> open, ErrorKind kind = ErrorKind.InvalidInput) => new(rule, name, kind, open);

    private static RuleCase Refuses(Rule rule, string name, Action<Skeleton> change, ErrorKind kind = ErrorKind.InvalidInput) =>
        Refuses(rule, name, () => Open(Skeleton.Broken(change)), kind);

    private static RuleCase Accepts(Rule rule, string name, Func<object> open) => new(rule, name, null, open);

    private static RuleCase Accepts(Rule rule, string name, params Action<Skeleton>[] changes) => Accepts(rule, name, () =>
    {
        byte[] bytes = Skeleton.Broken(s => Array.ForEach(changes, change => change(s)));
        SafetensorsFile file = Open(bytes);
        Oracle.CheckEqual(bytes, file);
        return file;
    });

    private static RuleCase RefusesRows(Rule rule, string name, string dtype, string shape) => Refuses(
        rule,
        name,
        () =>
        {
            byte[] bytes = Skeleton.Broken(s => (s.Entries[0].Dtype, s.Entries[0].Shape) = (dtype, shape));
            using SafetensorsCheckpoint source = SafetensorsCheckpoint.FromFile(new MemoryReadFile("test.safetensors", bytes), new ReadOptions());
            return source.ReadAll(source.Tensors[0]);
        },
        ErrorKind.Unsupported);

    private static byte[] Patch(byte[] file, string text, byte[] replacement)
    {
        int at = file.AsSpan().IndexOf(Encoding.ASCII.GetBytes(text));
        replacement.CopyTo(file, at);
        return file;
    }

    private static void Empty(Skeleton skeleton, string offset, string shape = "[3,0]", string dtype = "\"F32\"") =>
        skeleton.Entries.Add(new("empty", "F32", shape, offset, offset) { Dtype = dtype });

    private static void Shift(Skeleton skeleton, int bytes)
    {
        foreach (Skeleton.Entry entry in skeleton.Entries.Skip(1)) Move(entry, bytes);
        skeleton.DataBytes += bytes;
    }

    private static void Move(Skeleton.Entry entry, int bytes)
    {
        entry.Begin = Skeleton.Text(long.Parse(entry.Begin, System.Globalization.CultureInfo.InvariantCulture) + bytes);
        entry.End = Skeleton.Text(long.Parse(entry.End, System.Globalization.CultureInfo.InvariantCulture) + bytes);
    }
}
