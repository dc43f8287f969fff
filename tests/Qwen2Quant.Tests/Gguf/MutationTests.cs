using System.Buffers.Binary;
using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>
/// A right file with one thing broken: it is refused by a typed error, or read; then nothing of the header is lost (planning it again
/// gives the same header) and every tensor lies in the file. Never another exception, never slow, never much memory.
/// </summary>
public class MutationTests
{
    private const int Seed = 7_310_033, FuzzRounds = 6000;
    private const long MostBytes = 4 << 20;

    /// <summary>Written as soon as a tensor is quantized (rule GG-55).</summary>
    private const string VersionKey = "general.quantization_version";

    private static readonly Dictionary<string, Func<byte[], RawField, byte[]>> Mutations = new()
    {
        ["plus 1"] = (file, field) => Add(file, field, 1),
        ["minus 1"] = (file, field) => Add(file, field, ulong.MaxValue),
        ["zero"] = (file, field) => Fill(file, field, 0x00),
        ["ones"] = (file, field) => Fill(file, field, 0xff),
        ["largest positive"] = (file, field) => Patch(Fill(file, field, 0xff), field.Offset + field.Length - 1, 0x7f),
        ["sign bit"] = (file, field) => Patch(file, field.Offset + field.Length - 1, (byte)(file[field.Offset + field.Length - 1] ^ 0x80)),
        ["high half"] = (file, field) => Patch(file, field.Offset + (field.Length / 2), (byte)(file[field.Offset + (field.Length / 2)] ^ 1)),
        ["swapped"] = (file, field) => Swap(file, field),
        ["twice"] = (file, field) => [.. file[..(field.Offset + field.Length)], .. file[field.Offset..]],
        ["missing"] = (file, field) => [.. file[..field.Offset], .. file[(field.Offset + field.Length)..]],
        ["cut before"] = (file, field) => file[..field.Offset],
        ["cut after"] = (file, field) => file[..(field.Offset + field.Length)],
        ["cut inside"] = (file, field) => file[..(field.Offset + (field.Length / 2))],
    };

    public static TheoryData<string> MutationNames => new(Mutations.Keys);

    [Theory]
    [MemberData(nameof(MutationNames))]
    public void Every_field_may_be_broken_so(string mutation)
    {
        foreach (uint version in new uint[] { 1, 2, 3 })
        {
            RawGguf raw = RawGguf.Sample(version).Number("general.alignment", 4, 32, 4);
            byte[] file = raw.Build();
            foreach (RawField field in raw.Fields)
            {
                byte[] mutated = Mutations[mutation](file.ToArray(), field);
                string context = $"version {version}, {field.Name}, {mutation}";
                if (CheckFate(mutated, context) && mutated.Length == file.Length) CheckType(mutated, field, context);
            }
        }
    }

    /// <summary>An empty tensor has the same size in every type: another type of it is accepted, and must be the one that the file now names.</summary>
    private static void CheckType(byte[] bytes, RawField field, string context)
    {
        const string suffix = ".weight.type";
        if (!field.Name.EndsWith(suffix, StringComparison.Ordinal)) return;
        uint id = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(field.Offset));
        using GgufFile file = Opening.Open(bytes);
        TensorEntry tensor = file.Find(field.Name[..^".type".Length])!;
        Assert.True(GgmlTypes.All.Single(type => type.Id == id).Element == tensor.Type, context);
    }

    [Fact]
    public void Random_damage_is_survived()
    {
        Random random = new(Seed);
        byte[][] sources = [RawGguf.Sample(1).Build(), RawGguf.Sample().Build(), RawGguf.Sample().Align(8).Build(), SplitCases.Part(0).Build()];
        int accepted = 0;
        for (int round = 0; round < FuzzRounds; round++)
        {
            byte[] file = sources[random.Next(sources.Length)].ToArray();
            for (int i = 1 + random.Next(3); i > 0; i--) file = Damage(random, file);
            if (CheckFate(file, $"seed {Seed}, round {round}")) accepted++;
        }

        Assert.InRange(accepted, FuzzRounds / 100, FuzzRounds * 9 / 10);
    }

    private static byte[] Damage(Random random, byte[] file)
    {
        if (file.Length < 16) return file;
        int at = random.Next(file.Length - 8);
        ulong[] telling = [0, 1, 13, 31, 0x7fff_ffff, 0xffff_ffff, 1UL << 32, (1UL << 63) - 1, 1UL << 63, ulong.MaxValue];
        switch (random.Next(6))
        {
            case 0:
                file[at] = (byte)random.Next();
                return file;
            case 1:
                file[at] ^= (byte)(1 << random.Next(8));
                return file;
            case 2:
                BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(at), telling[random.Next(telling.Length)]);
                return file;
            case 3:
                BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), (uint)telling[random.Next(telling.Length)]);
                return file;
            case 4:
                return file[..at];
            default:
                int length = random.Next(Math.Min(40, file.Length - at));
                int to = random.Next(file.Length);
                return [.. file[..to], .. file[at..(at + length)], .. file[to..]];
        }
    }

    private static bool CheckFate(byte[] bytes, string context)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        long start = Stopwatch.GetTimestamp();
        GgufFile? file = null;
        try
        {
            file = Opening.Open(bytes);
        }
        catch (QuantException error)
        {
            Assert.True(error.Rule is not null, $"{context}: no rule in '{error.Message}'");
        }
        catch (Exception error)
        {
            Assert.Fail($"{context}: {error}");
        }

        Assert.True(Stopwatch.GetElapsedTime(start).TotalSeconds < 1, $"{context}: slow");
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < MostBytes, $"{context}: too much memory");
        if (file is null) return false;
        using (file) CheckNothingLost(file, bytes, context);
        return true;
    }

    private static void CheckNothingLost(GgufFile file, byte[] bytes, string context)
    {
        foreach (TensorEntry tensor in file.Tensors)
        {
            byte[] raw = new byte[tensor.ByteLength];
            file.ReadRaw(tensor, 0, raw);
            if (raw.Length > 0) Assert.True(raw.AsSpan().SequenceEqual(bytes.AsSpan((int)tensor.ByteOffset, raw.Length)), context);
        }

        PlannedFile plan;
        try
        {
            plan = GgufPlan.Create(file.Metadata, [.. file.Tensors.Select(t => new OutputTensor(t.Name, t.Type, t.Shape))], "again.gguf");
        }
        catch (QuantException error) when (error.Rule == GgufRules.KeySpelling || error.Rule == GgufRules.Nesting)
        {
            return;
        }

        using GgufFile again = Opening.Open(Planned.Write(plan));
        IEnumerable<KeyValuePair<string, GgufValue>> expected = file.Metadata.Where(IsWritten);
        bool mustTellVersion = file.Tensors.Any(tensor => tensor.Type.IsQuantized) && file.Metadata.Find(VersionKey) is null;
        if (mustTellVersion) expected = expected.Append(new(VersionKey, GgufValue.Scalar(2u)));
        Assert.True(expected.SequenceEqual(again.Metadata), context);
        Assert.True(file.Tensors.Select(Describe).SequenceEqual(again.Tensors.Select(Describe)), context);
        if (file.Version != 3 || mustTellVersion || file.Metadata.Any(pair => !IsWritten(pair))) return;
        int length = plan.Header.AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
        Assert.True(plan.Header.AsSpan(0, length).SequenceEqual(bytes.AsSpan(0, length)), $"{context}: the header is not what was read");
    }

    private static bool IsWritten(KeyValuePair<string, GgufValue> pair) =>
        !pair.Key.StartsWith("split.", StringComparison.Ordinal)
        && (pair.Value.IsArray ? pair.Value.Count > 0 : pair.Value.Type != GgufValueType.String || pair.Value.GetUtf8().Length > 0);

    private static (string, ElementType, Shape) Describe(TensorEntry tensor) => (tensor.Name, tensor.Type, tensor.Shape);

    private static byte[] Add(byte[] file, RawField field, ulong amount)
    {
        ulong carry = amount;
        for (int i = 0; i < Math.Min(field.Length, 8); i++)
        {
            ulong sum = file[field.Offset + i] + (carry & 0xff);
            file[field.Offset + i] = (byte)sum;
            carry = (carry >> 8) + (sum >> 8);
        }

        return file;
    }

    private static byte[] Fill(byte[] file, RawField field, byte value)
    {
        file.AsSpan(field.Offset, field.Length).Fill(value);
        return file;
    }

    private static byte[] Patch(byte[] file, int offset, byte value)
    {
        file[offset] = value;
        return file;
    }

    private static byte[] Swap(byte[] file, RawField field)
    {
        file.AsSpan(field.Offset, field.Length).Reverse();
        return file;
    }
}
