using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>What makes a file an importance matrix, and its numbers usable.</summary>
public sealed class ImatrixRuleTests
{
    [Fact]
    public void EveryRuleHasItsCases()
    {
        List<Rules.RuleCase> cases = [.. Cases()];
        Rules.RuleCase.CheckCoverage(cases, [.. ImatrixRules.All, StatisticsRules.Usable], []);
        foreach (Rules.RuleCase item in cases) item.Check();
    }

    private static IEnumerable<Rules.RuleCase> Cases()
    {
        yield return Gguf(ImatrixRules.Layout, "a model", ErrorKind.InvalidInput, [("a.weight.in_sum2", [2], [1, 2]), ("a.weight.counts", [1], [1])], type: "model");
        yield return Gguf(ImatrixRules.Layout, "no entries", ErrorKind.InvalidInput, [("a.weight", [2], [1, 2])]);
        yield return Gguf(ImatrixRules.Layout, "sums without counts", ErrorKind.InvalidInput, [("a.weight.in_sum2", [2], [1, 2])]);
        yield return Gguf(ImatrixRules.Layout, "counts without sums", ErrorKind.InvalidInput, [("a.weight.in_sum2", [2], [1, 2]), ("a.weight.counts", [1], [1]), ("b.weight.counts", [1], [1])]);
        yield return Gguf(ImatrixRules.Layout, "three sums for two counts", ErrorKind.InvalidInput, [("a.weight.in_sum2", [3], [1, 2, 3]), ("a.weight.counts", [2, 1], [1, 1])]);
        yield return Gguf(ImatrixRules.Layout, "empty sums", ErrorKind.InvalidInput, [("a.weight.in_sum2", [0], []), ("a.weight.counts", [1], [1])]);
        yield return Gguf(ImatrixRules.Layout, "sums in half precision", ErrorKind.InvalidInput, [("a.weight.in_sum2", [2], [1, 2]), ("a.weight.counts", [1], [1])], PlainTypes.F16);
        yield return Gguf(ImatrixRules.Layout, "no type and more tensors than needed", null, [("a.weight.in_sum2", [2], [1, 2]), ("a.weight.counts", [1], [1]), ("a.weight.in_sum", [2], [1, 2]), ("a.weight.stats", [1], [0])], type: null);
        yield return Dat("nothing", ErrorKind.InvalidInput, dat => dat);
        yield return Dat("no entry", ErrorKind.InvalidInput, dat => dat.Int(0));
        yield return Dat("2^31 - 1 entries", ErrorKind.InvalidInput, dat => dat.Int(int.MaxValue));
        yield return Dat("a name of no bytes", ErrorKind.InvalidInput, dat => dat.Int(1).Text("").Int(1).Int(1).Floats(1));
        yield return Dat("a name of 5,000 bytes", ErrorKind.InvalidInput, dat => dat.Int(1).Text(new string('x', 5000)).Int(1).Int(1).Floats(1));
        yield return Dat("a name beyond the file", ErrorKind.InvalidInput, dat => dat.Int(1).Int(100).Int(0));
        yield return Dat("values beyond the file", ErrorKind.InvalidInput, dat => dat.Int(1).Text("a").Int(1).Int(0x20000001).Floats(1));
        yield return Dat("no values", ErrorKind.InvalidInput, dat => dat.Int(1).Text("a").Int(1).Int(0));
        yield return Dat("a name twice", ErrorKind.InvalidInput, dat => dat.Int(2).Text("a").Int(1).Int(1).Floats(1).Text("a").Int(1).Int(1).Floats(1));
        yield return Dat("bytes at the end", ErrorKind.InvalidInput, dat => dat.Int(1).Text("a").Int(1).Int(1).Floats(1).Int(1).Text("t").Int(0));
        yield return Dat("a name of 4,096 bytes", null, dat => dat.Int(1).Text(new string('x', 4096)).Int(1).Int(1).Floats(1));

        yield return Sums("a NaN", ErrorKind.InvalidInput, [1, float.NaN], [1]);
        yield return Sums("an infinity", ErrorKind.InvalidInput, [1, float.PositiveInfinity], [1]);
        yield return Sums("a negative sum", ErrorKind.InvalidInput, [1, -1e-30f], [1]);
        yield return Sums("a negative count", ErrorKind.InvalidInput, [1, 2], [-1]);
        yield return Sums("a count that is NaN", ErrorKind.InvalidInput, [1, 2], [float.NaN]);
        yield return Sums("no rows", ErrorKind.InvalidInput, [1, 2], [0]);
        yield return Sums("no rows of any expert", ErrorKind.InvalidInput, [1, 2], [0, 0]);
        yield return Sums("zeros and the largest number", null, [0, float.MaxValue], [1]);
        yield return Sums("rows of one expert", null, [0, 2], [0, 1]);
        yield return new Rules.RuleCase(StatisticsRules.Usable, "no calls", ErrorKind.InvalidInput, () => ImatrixTests.Read(new ImatrixTests.Dat().Int(1).Text("a").Int(0).Int(1).Floats(1).ToArray()));
        yield return new Rules.RuleCase(StatisticsRules.Usable, "-1 calls", ErrorKind.InvalidInput, () => ImatrixTests.Read(new ImatrixTests.Dat().Int(1).Text("a").Int(-1).Int(1).Floats(1).ToArray()));
    }

    private static Rules.RuleCase Sums(string name, ErrorKind? refusal, float[] sums, float[] counts) => Gguf(
        StatisticsRules.Usable, name, refusal, [("a.weight.in_sum2", [counts.Length, sums.Length / counts.Length], sums), ("a.weight.counts", [counts.Length, 1], counts)]);

    private static Rules.RuleCase Dat(string name, ErrorKind? refusal, Func<ImatrixTests.Dat, ImatrixTests.Dat> build) =>
        new(ImatrixRules.Layout, "older format: " + name, refusal, () => ImatrixTests.Read(build(new ImatrixTests.Dat()).ToArray()));

    private static Rules.RuleCase Gguf(
        Rule rule, string name, ErrorKind? refusal, (string Name, long[] Shape, float[] Values)[] tensors, ElementType? elementType = null, string? type = "imatrix") => new(rule, name, refusal, () =>
    {
        GgufMetadata metadata = new();
        if (type is not null) metadata.Set("general.type", GgufValue.String(type));
        PlannedFile plan = GgufPlan.Create(metadata, [.. tensors.Select(tensor => new OutputTensor(tensor.Name, elementType ?? PlainTypes.F32, new Shape(tensor.Shape)))], "x");
        byte[] bytes = new byte[plan.ByteLength];
        plan.Header.CopyTo(bytes, 0);
        if (elementType is null)
        {
            foreach ((PlannedTensor planned, (string, long[], float[] Values) tensor) in plan.Tensors.Zip(tensors)) MemoryMarshal.AsBytes(tensor.Values.AsSpan()).CopyTo(bytes.AsSpan((int)planned.ByteOffset));
        }

        return ImatrixTests.Read(bytes);
    });
}
