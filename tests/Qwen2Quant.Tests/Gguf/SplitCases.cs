using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>Sets of three parts: complete, and broken in each way.</summary>
internal static class SplitCases
{
    public static IReadOnlyList<RuleCase> All { get; } =
    [
        Refused("part missing", files => files.Without(Name(2))),
        Refused("first part missing", files => files.Without(Name(0)), 1),
        Refused("number and name differ", files => files[Name(1)] = Part(2).Build()),
        Refused("number out of range", files => files[Name(2)] = Part(2, no: 3).Build()),
        Refused("named part out of range", files => files[Name(2)] = Part(2, no: 3).Build(), 2),
        Refused("renamed", files => files["dir/renamed.gguf"] = files[Name(0)], path: "dir/renamed.gguf"),
        Refused("of another count", files => files[Name(1)] = Part(1, count: 4).Build()),
        Refused("of another total", files => files[Name(1)] = Part(1, total: 9).Build()),
        Refused("total differs from the sum", files => SetAll(files, total: 7)),
        Refused("of another model, by its metadata", files => files[Name(1)] = Part(1).Text("general.architecture", "llama").Build()),
        Refused("of another model, by its names", files => files[Name(1)] = new RawGguf().With(raw => SplitKeys(raw, 1, 3, 6)).Tensor("t0.0", 0, 1).Tensor("t0.1", 0, 1).Build()),
        Refused("without keys", files => files[Name(1)] = new RawGguf().Tensor("t1.0", 0, 1).Tensor("t1.1", 0, 1).Build()),
        Refused("key of another kind", files => files[Name(0)] = new RawGguf().Text("split.count", "3").Build()),
        Refused("single part numbered 1", files => files[Name(0)] = new RawGguf().With(raw => SplitKeys(raw, 1, 1, 0)).Build()),
        Accepted("complete, first part named", 0),
        Accepted("complete, middle part named", 1),
        Accepted("complete, last part named", 2),
        new RuleCase("GG-51", Outcome.Accepted, "a set of one", () => new MemoryFolder { [Name(0)] = new RawGguf().With(raw => SplitKeys(raw, 0, 1, 0)).Build() }, Name(0)),
        new RuleCase("GG-51", Outcome.Accepted, "merged, count 0", () => new MemoryFolder { [Name(0)] = new RawGguf().With(raw => SplitKeys(raw, 0, 0, 99)).Build() }, Name(0)),
    ];

    public static string Name(int index) => $"dir/small-{index + 1:d5}-of-00003.gguf";

    /// <summary>Two tensors a part; the first part has the model's metadata.</summary>
    public static RawGguf Part(int index, int? no = null, int count = 3, int total = 6)
    {
        RawGguf raw = new();
        if (index == 0) raw.Text("general.architecture", "qwen2");
        SplitKeys(raw, no ?? index, count, total);
        return raw.Tensor($"t{index}.0", 0, 3, 2).Tensor($"t{index}.1", 1, 5);
    }

    public static MemoryFolder Set()
    {
        MemoryFolder files = new();
        SetAll(files, total: 6);
        return files;
    }

    private static void SetAll(MemoryFolder files, int total)
    {
        for (int i = 0; i < 3; i++) files[Name(i)] = Part(i, total: total).Build();
    }

    private static void SplitKeys(RawGguf raw, int no, int count, int total) =>
        raw.Number("split.no", 2, (ulong)no, 2).Number("split.count", 2, (ulong)count, 2).Number("split.tensors.count", 5, (ulong)total, 4);

    private static RuleCase Refused(string name, Action<MemoryFolder> change, int named = 0, string? path = null) =>
        new("GG-51", Outcome.Refused, name, () => Change(change), path ?? Name(named));

    private static MemoryFolder Change(Action<MemoryFolder> change)
    {
        MemoryFolder files = Set();
        change(files);
        return files;
    }

    private static RuleCase Accepted(string name, int named) => new("GG-51", Outcome.Accepted, name, Set, Name(named));
}
