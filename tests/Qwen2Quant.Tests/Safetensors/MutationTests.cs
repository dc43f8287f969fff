using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Safetensors;
using Xunit.Abstractions;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Safetensors;

/// <summary>Whatever is done to a valid file, the reader accepts it with the meaning it has, or refuses it with a rule: quickly, and in little memory.</summary>
public sealed class MutationTests(ITestOutputHelper output)
{
    private const long MostAllocated = 64 << 20;
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(1);

    private static readonly (string Name, Func<Skeleton, string> Get, Action<Skeleton, string> Set)[] Fields =
    [
        ("length", static s => Skeleton.Text(s.Build().Length - 8 - s.DataBytes), static (s, v) => s.Length = ulong.TryParse(v, out ulong n) ? n : null),
        ("data length", static s => Skeleton.Text(s.DataBytes), static (s, v) => s.DataBytes = int.TryParse(v, out int n) && n is >= 0 and < 1000 ? n : s.DataBytes),
        ("header", static s => Encoding.UTF8.GetString(s.Build().AsSpan()[8..^s.DataBytes]), static (s, v) => s.Header = v),
        ("metadata", static s => s.Metadata!, static (s, v) => s.Metadata = v),
        .. Enumerable.Range(0, 3).SelectMany(static i => new (string, Func<Skeleton, string>, Action<Skeleton, string>)[]
        {
            ($"name {i}", s => s.Entries[i].Name, (s, v) => s.Entries[i].Name = v),
            ($"dtype {i}", s => s.Entries[i].Dtype, (s, v) => s.Entries[i].Dtype = v),
            ($"shape {i}", s => s.Entries[i].Shape, (s, v) => s.Entries[i].Shape = v),
            ($"dimension {i}", s => s.Entries[i].Shape.Trim('[', ']').Split(',')[0], (s, v) => s.Entries[i].Shape = s.Entries[i].Shape.Contains(',') ? $"[{v},2]" : $"[{v}]"),
            ($"begin {i}", s => s.Entries[i].Begin, (s, v) => s.Entries[i].Begin = v),
            ($"end {i}", s => s.Entries[i].End, (s, v) => s.Entries[i].End = v),
            ($"entry {i}", s => s.Entries[i].ToString()[(s.Entries[i].Name.Length + 1)..], (s, v) => s.Entries[i].Value = v),
        }),
    ];

    private static readonly (string Name, Func<string, string, string> Change)[] Mutations =
    [
        ("+1", static (v, _) => long.TryParse(v, out long n) ? Skeleton.Text(n + 1) : v + "1"),
        ("-1", static (v, _) => long.TryParse(v, out long n) ? Skeleton.Text(n - 1) : "-" + v),
        ("zero", static (_, _) => "0"),
        ("max", static (_, _) => "9223372036854775807"),
        ("unsigned max", static (_, _) => "18446744073709551615"),
        ("wrap", static (v, _) => long.TryParse(v, out long n) ? (new System.Numerics.BigInteger(n) + (System.Numerics.BigInteger.One << 64)).ToString(System.Globalization.CultureInfo.InvariantCulture) : "[4294967296,4294967296]"),
        ("swap", static (_, other) => other),
        ("duplicate", static (v, _) => $"{v},{v}"),
        ("cut", static (v, _) => v[..(v.Length / 2)]),
        ("empty", static (_, _) => ""),
    ];

    [Fact]
    public void EveryFieldUnderEveryMutation()
    {
        int accepted = 0, refused = 0;
        for (int field = 0; field < Fields.Length; field++)
        {
            foreach ((string name, Func<string, string, string> change) in Mutations)
            {
                Skeleton skeleton = new();
                string other = Fields[(field + 7) % Fields.Length].Get(skeleton);
                Fields[field].Set(skeleton, change(Fields[field].Get(skeleton), other));
                Rule? rule = OpenOrRefuse(skeleton.Build(), $"{Fields[field].Name} {name}");
                if (rule is null) accepted++;
                else refused++;
            }
        }

        output.WriteLine($"{Fields.Length} fields x {Mutations.Length} mutations: {accepted} accepted, {refused} refused");
        Assert.True(refused > accepted);
    }

    [Fact]
    public void EveryCutOfAFile()
    {
        byte[] whole = new Skeleton().Build();
        for (int length = 0; length < whole.Length; length++) Assert.NotNull(OpenOrRefuse(whole[..length], $"cut to {length}"));
    }

    [Theory]
    [InlineData(20260822)]
    [InlineData(7)]
    public void RandomMutations(int seed)
    {
        Random random = new(seed);
        Dictionary<string, int> outcomes = [];
        for (int i = 0; i < 4000; i++)
        {
            byte[] file = Mutate(random);
            string outcome = OpenOrRefuse(file, $"seed {seed}, iteration {i}")?.Id ?? "accepted";
            outcomes[outcome] = outcomes.GetValueOrDefault(outcome) + 1;
        }

        output.WriteLine($"seed {seed}: " + string.Join(", ", outcomes.OrderByDescending(static pair => pair.Value).Select(static pair => $"{pair.Key} {pair.Value}")));
        Assert.True(outcomes.Count > 15, "the mutations reach too few rules");
        Assert.True(outcomes.GetValueOrDefault("accepted") is > 50 and < 3000);
    }

    [Fact]
    public void RandomMutationsOfAnIndex()
    {
        const int Seed = 11;
        Random random = new(Seed);
        int accepted = 0;
        Dictionary<string, int> outcomes = [];
        string index = Encoding.UTF8.GetString(WeightFileRuleCases.Folder()[SafetensorsPlan.IndexFileName]);
        for (int i = 0; i < 2000; i++)
        {
            string mutated = random.Next(4) switch
            {
                0 => Repeat(index, random),
                1 => index.Remove(random.Next(index.Length), 1),
                2 => index.Insert(random.Next(index.Length + 1), Pieces[random.Next(Pieces.Length)]),
                _ => ReplaceNumber(index, random),
            };
            MemoryFolder folder = WeightFileRuleCases.Folder().With(SafetensorsPlan.IndexFileName, mutated);
            Rule? rule = OpenOrRefuse(
                () =>
                {
                    using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions());
                    Assert.Equal(["x", "y"], checkpoint.Tensors.Select(static entry => entry.Name));
                },
                $"seed {Seed}, iteration {i}");
            Assert.Equal(0, folder.OpenCount);
            if (rule is null) accepted++;
            else outcomes[rule.Id] = outcomes.GetValueOrDefault(rule.Id) + 1;
        }

        output.WriteLine($"seed {Seed}: {accepted} accepted, " + string.Join(", ", outcomes.Select(static pair => $"{pair.Key} {pair.Value}")));
        Assert.True(accepted > 20 && outcomes.Count >= 3);
    }

    private static byte[] Mutate(Random random)
    {
        Skeleton skeleton = new();
        int fields = random.Next(3);
        for (int i = 0; i < fields; i++)
        {
            int field = random.Next(Fields.Length);
            Fields[field].Set(skeleton, Mutations[random.Next(Mutations.Length)].Change(Fields[field].Get(skeleton), Fields[random.Next(Fields.Length)].Get(skeleton)));
        }

        byte[] file = skeleton.Build();
        int headerLength = file.Length - 8 - skeleton.DataBytes;
        string header = Encoding.UTF8.GetString(file, 8, headerLength);
        header = random.Next(8) switch
        {
            0 or 4 or 5 => ReplaceNumber(header, random),
            1 when header.Length > 0 => header.Remove(random.Next(header.Length), 1),
            2 => header.Insert(random.Next(header.Length + 1), Pieces[random.Next(Pieces.Length)]),
            3 => Repeat(header, random),
            _ => header,
        };
        byte[] mutated = Skeleton.Join(Encoding.UTF8.GetBytes(header), skeleton.DataBytes, random.Next(10) == 0 ? skeleton.Length : null);
        int flips = random.Next(4) == 0 ? random.Next(1, 4) : 0;
        for (int i = 0; i < flips; i++) mutated[random.Next(mutated.Length)] ^= (byte)(1 << random.Next(8));
        return random.Next(12) == 0 ? mutated[..random.Next(mutated.Length)] : mutated;
    }

    private static readonly string[] Pieces =
        ["{", "}", "[", "]", "\"", ",", ":", " ", "\n", "0", "-", "e9", ".0", "\\u0061", "\\ud800", "null", "\"shape\":[],", "\0", "é", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["];

    private static string ReplaceNumber(string header, Random random)
    {
        string[] numbers = ["0", "1", "15", "16", "17", "27", "28", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615", "4194305", "1.5", "1e3"];
        MatchCollection places = Regex.Matches(header, "[0-9]+");
        if (places.Count == 0) return header;
        Match place = places[random.Next(places.Count)];
        return header[..place.Index] + numbers[random.Next(numbers.Length)] + header[(place.Index + place.Length)..];
    }

    private static string Repeat(string header, Random random)
    {
        int from = random.Next(header.Length + 1), to = random.Next(from, header.Length + 1);
        return header.Insert(to, header[from..to]);
    }

    /// <summary>Null when the file was accepted and means what a second parser says; else the rule by which it was refused.</summary>
    private static Rule? OpenOrRefuse(byte[] file, string what) =>
        OpenOrRefuse(() => Oracle.CheckEqual(file, SafetensorsRuleCases.Open(file)), what);

    private static Rule? OpenOrRefuse(Action open, string what)
    {
        // A machine under load may hold a thread up: only an input that is slow every time is slow.
        TimeSpan fastest = TimeSpan.MaxValue;
        Rule? rule = null;
        for (int attempt = 0; attempt < 3 && fastest > Longest; attempt++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            long start = Stopwatch.GetTimestamp();
            rule = OpenOnce(open, what);
            TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
            if (elapsed < fastest) fastest = elapsed;
            Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < MostAllocated, $"{what}: allocated too much");
        }

        Assert.True(fastest <= Longest, $"{what}: took {fastest}");
        return rule;
    }

    private static Rule? OpenOnce(Action open, string what)
    {
        try
        {
            open();
            return null;
        }
        catch (QuantException error)
        {
            Assert.True(error.Rule is not null, $"{what}: refused without a rule: {error.Message}");
            return error.Rule;
        }
        catch (Exception error)
        {
            Assert.Fail($"{what}: {error}");
            throw;
        }
    }
}
