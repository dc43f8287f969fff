using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Tests.Rules;
using Qwen2Quant.Tests.Support;
using static Qwen2Quant.Formats.Safetensors.WeightFileRules;

namespace Qwen2Quant.Tests.Safetensors;

/// <summary>For each rule of a folder of weights: a folder that breaks only it, and one that just satisfies it.</summary>
public static class WeightFileRuleCases
{
    public const string First = "model-00001-of-00002.safetensors";
    public const string Second = "model-00002-of-00002.safetensors";
    private const string Single = SafetensorsPlan.SingleFileName;
    private const string Index = SafetensorsPlan.IndexFileName;

    public static IReadOnlyList<RuleCase> All { get; } =
    [
        .. new[] { "../../etc/passwd", "/abs.safetensors", "C:\\x.safetensors", "C:x.safetensors", "a/b.safetensors", "..\\a.safetensors", "a\\u0000.safetensors", "", ".", "..", ".safetensors", "model.bin", "a\\n.safetensors" }
            .Select(static (name, i) => Refuses(IndexNamesPlainFiles, $"name {i}", f => f.With(Index, Map(("x", name.Replace("\\x", "\\\\x", StringComparison.Ordinal).Replace("\\a", "\\\\a", StringComparison.Ordinal)), ("y", Second))))),
        Refuses(IndexNamesPlainFiles, "not JSON", static f => f.With(Index, "<html>")),
        Refuses(IndexNamesPlainFiles, "cut short", static f => f.With(Index, f[Index][..^4])),
        Refuses(IndexNamesPlainFiles, "text behind it", static f => f.With(Index, Map(("x", First), ("y", Second)) + "{}")),
        Refuses(IndexNamesPlainFiles, "no weight_map", static f => f.With(Index, "{\"metadata\":{}}")),
        Refuses(IndexNamesPlainFiles, "empty weight_map", static f => f.With(Index, Map())),
        Refuses(IndexNamesPlainFiles, "two weight_maps", static f => f.With(Index, $"{Map(("x", First), ("y", Second)).TrimEnd('}')}}},\"weight_map\":{{}}}}")),
        Refuses(IndexNamesPlainFiles, "weight_map that is an array", static f => f.With(Index, "{\"weight_map\":[]}")),
        Refuses(IndexNamesPlainFiles, "a shard that is a number", static f => f.With(Index, "{\"weight_map\":{\"x\":1}}")),
        Refuses(IndexNamesPlainFiles, "nested too deep", static f => f.With(Index, new StringBuilder("{\"metadata\":").Append('[', 100).Append(']', 100).Append('}').ToString())),
        Accepts(IndexNamesPlainFiles, "names without numbers", static f => f.With("first part.safetensors", f[First]).With("b.safetensors", f[Second]).Without(First).Without(Second).With(Index, Map(("x", "first part.safetensors"), ("y", "b.safetensors")))),
        Refuses(ShardsPresent, "one shard missing", static f => f.Without(First)),
        Refuses(ShardsPresent, "all shards missing", static f => f.Without(First).Without(Second)),
        Refuses(ShardsPresent, "index missing", static f => f.Without(Index)),
        Refuses(ShardsPresent, "index and a shard missing", static f => f.Without(Index).Without(Second)),
        Refuses(ShardsPresent, "nothing at all", static f => f.Without(Index).Without(First).Without(Second)),
        Accepts(ShardsPresent, "both shards", static _ => { }),
        Accepts(ShardsPresent, "the only shard of one, without an index", static f => ToSingle(f, "model-00001-of-00001.safetensors")),
        Refuses(IndexComplete, "a shard that the index omits", static f => f.With("model-00003-of-00003.safetensors", f[First])),
        Refuses(IndexComplete, "a tensor that the index omits", static f => f.With(First, File("x", "z"))),
        Refuses(IndexComplete, "a tensor mapped elsewhere", static f => f.With(Index, Map(("x", First), ("y", First), ("q", Second)))),
        Refuses(IndexComplete, "a tensor that no shard holds", static f => f.With(Index, Map(("x", First), ("y", Second), ("z", Second)))),
        Accepts(IndexComplete, "the same tensors in both", static f => f.With(First, File("x", "z")).With(Index, Map(("x", First), ("y", Second), ("z", First)))),
        Refuses(TensorInOneShard, "in two files", static f => f.With(Second, File("x", "y"))),
        Refuses(TensorInOneShard, "twice in the index", static f => f.With(Index, Map(("x", First), ("y", Second), ("x", Second)))),
        Accepts(TensorInOneShard, "names that differ by case", static f => f.With(Second, File("X", "y")).With(Index, Map(("x", First), ("y", Second), ("X", Second)))),
        .. new[] { "1", "0", "-5", "32.0", "1e999", "\"32\"", "[]", "null", "99999999999999999999999" }
            .Select(static size => Reports(TotalSizeUntrusted, $"total_size {size}", f => f.With(Index, Map(("x", First), ("y", Second)).Replace("{}", $"{{\"total_size\":{size}}}", StringComparison.Ordinal)))),
        Accepts(TotalSizeUntrusted, "the right one", static _ => { }),
        Accepts(TotalSizeUntrusted, "none", static f => f.With(Index, Map(("x", First), ("y", Second)))),
        Refuses(OneWayToRead, "a single file beside the index", static f => f.With(Single, File("x", "y"))),
        Refuses(OneWayToRead, "two indexes", static f => f.With("other.safetensors.index.json", f[Index])),
        Refuses(OneWayToRead, "two files without an index", static f => ToSingle(f, "a.safetensors").With("b.safetensors", f["a.safetensors"])),
        Accepts(OneWayToRead, "an index of the single file", static f => ToSingle(f, Single).With(Index, Map(("x", Single), ("y", Single)))),
        Accepts(OneWayToRead, "a single file of another name", static f => ToSingle(f, "gptq_model-4bit-128g.safetensors")),
        new(OneWayToRead, "both, when told the index", null, static () => { using SafetensorsCheckpoint c = SafetensorsCheckpoint.OpenIndex(Folder().With(Single, File("q")), PathOf(Index), new ReadOptions()); return c.Find("y")!; }),
        new(OneWayToRead, "both, when told the file", null, static () => { using SafetensorsCheckpoint c = SafetensorsCheckpoint.OpenFile(Folder().With(Single, File("q")), PathOf(Single), new ReadOptions()); return c.Find("q")!; }),
        Refuses(NotLfsPointer, "a pointer", static f => f.With(First, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n")),
        Accepts(NotLfsPointer, "weights that mention it", static f => f.With(First, File("x", "version https://git-lfs")).With(Index, Map(("x", First), ("y", Second), ("version https://git-lfs", First)))),
        Refuses(NotText, "HTML", static f => f.With(First, "<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>")),
        Refuses(NotText, "JSON", static f => f.With(First, "{\"error\":\"Repository not found\"}")),
        Refuses(NotText, "plain words", static f => f.With(First, "Entry not found")),
        Refuses(NotText, "a byte order mark and HTML", static f => f.With(First, "\uFEFF<html lang=\"ü\">")),
        Accepts(NotText, "a header whose length is the code of '<'", static f => f.With(First, Skeleton.Join(Encoding.UTF8.GetBytes("""{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}""".PadRight('<')), 4))),
        Refuses(NotPickle, "pytorch_model.bin only", static f => f.Without(Index).Without(First).Without(Second).With("pytorch_model.bin", [1]), ErrorKind.Unsupported),
        Refuses(NotPickle, "shards of it", static f => f.Without(Index).Without(First).Without(Second).With("pytorch_model-00001-of-00002.bin", [1]), ErrorKind.Unsupported),
        Refuses(NotPickle, "model.pt only", static f => f.Without(Index).Without(First).Without(Second).With("model.pt", [1]), ErrorKind.Unsupported),
        Refuses(NotPickle, "a renamed archive", static f => f.With(First, [0x50, 0x4b, 3, 4, 0, 0, 8, 8, 0, 0, 0, 0]), ErrorKind.Unsupported),
        Refuses(NotPickle, "a renamed pickle", static f => f.With(First, [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]), ErrorKind.Unsupported),
        Accepts(NotPickle, "a pickle beside safetensors, never opened", static f => f.With("pytorch_model.bin", [1])),
        new(FileUnchanged, "a shard that was replaced", ErrorKind.InvalidInput, static () => ReadAfterTouch("model-00001-of-00020.safetensors")),
        new(FileUnchanged, "another file that was replaced", null, static () => ReadAfterTouch("config.json")),
        Refuses(ShardNamesDiffer, "A and a", static f => f.With("A.safetensors", f[First]).With("a.safetensors", f[Second]).Without(First).Without(Second).With(Index, Map(("x", "A.safetensors"), ("y", "a.safetensors")))),
        Accepts(ShardNamesDiffer, "A and b", static f => f.With("A.safetensors", f[First]).With("b.safetensors", f[Second]).Without(First).Without(Second).With(Index, Map(("x", "A.safetensors"), ("y", "b.safetensors")))),
    ];

    /// <summary>Two shards with tensors x and y of four bytes, and their index.</summary>
    internal static MemoryFolder Folder() => new MemoryFolder()
        .With("config.json", "{}")
        .With(SafetensorsPlan.Create([Bytes("x"), Bytes("y")], new Dictionary<string, string>(), 4));

    internal static string PathOf(string name) => Path.Combine(Path.GetFullPath(MemoryFolder.Path), name);

    private static OutputTensor Bytes(string name) => new(name, PlainTypes.U8, new Shape(4));

    private static byte[] File(params string[] names)
    {
        PlannedFile file = SafetensorsPlan.Create([.. names.Select(Bytes)], new Dictionary<string, string>(), 1000).Files[0];
        return [.. file.Header, .. new byte[file.ByteLength - file.Header.Length]];
    }

    private static string Map(params (string Tensor, string Shard)[] pairs) =>
        "{\"metadata\":{},\"weight_map\":{" + string.Join(',', pairs.Select(static pair => $"\"{pair.Tensor}\":\"{pair.Shard}\"")) + "}}";

    private static MemoryFolder ToSingle(MemoryFolder folder, string name) =>
        folder.Without(First).Without(Second).Without(Index).With(name, File("x", "y"));

    private static RuleCase Refuses(Rule rule, string name, Action<MemoryFolder> change, ErrorKind kind = ErrorKind.InvalidInput) => new(rule, name, kind, () =>
    {
        MemoryFolder folder = Folder();
        change(folder);
        try
        {
            return Open(folder, []);
        }
        finally
        {
            Assert.Equal(0, folder.OpenCount);
        }
    });

    private static RuleCase Accepts(Rule rule, string name, Action<MemoryFolder> change) => new(rule, name, null, () =>
    {
        MemoryFolder folder = Folder();
        change(folder);
        object opened = Open(folder, []);
        Assert.Equal(0, folder.OpenCount);
        return opened;
    });

    private static RuleCase Reports(Rule rule, string name, Action<MemoryFolder> change) => new(rule, name, null, () =>
    {
        MemoryFolder folder = Folder();
        change(folder);
        return Open(folder, ["index-total-size"]);
    });

    /// <summary>Opens, reads every tensor, and demands the events of these codes.</summary>
    private static IReadOnlyList<TensorEntry> Open(MemoryFolder folder, string[] events)
    {
        EventLog log = new();
        using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions { Events = log });
        foreach (TensorEntry entry in checkpoint.Tensors)
        {
            Assert.Same(entry, checkpoint.Find(entry.Name));
            checkpoint.ReadAll(entry);
        }

        Assert.Equal(events, log.Events.Select(static item => item.Code));
        return checkpoint.Tensors;
    }

    private static byte[] ReadAfterTouch(string name)
    {
        MemoryFolder folder = new MemoryFolder().With("config.json", "{}")
            .With(SafetensorsPlan.Create([.. Enumerable.Range(0, 20).Select(static i => Bytes($"t{i}"))], new Dictionary<string, string>(), 4));
        using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions());
        folder.Touch(name);
        byte[] bytes = new byte[4];
        checkpoint.ReadRaw(checkpoint.Find("t0")!, 0, bytes);
        return bytes;
    }
}
