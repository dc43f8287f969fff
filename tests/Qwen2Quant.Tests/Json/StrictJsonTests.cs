using System.Text;
using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Tests.Json;

/// <summary>What every reader of JSON refuses, in the two ways of reading: a value at a time, and in one pass that keeps nothing.</summary>
public class StrictJsonTests
{
    private static readonly Limits Limits = Limits.Default with { JsonDepth = 3, JsonFileBytes = 64 };

    public static TheoryData<string, JsonFault, JsonFault> Texts => new()
    {
        { "{}", JsonFault.None, JsonFault.None },
        { "{\"a\": [1, -2.5e3, \"\\ud83d\\ude00 \u00e9\", true, null]}", JsonFault.None, JsonFault.None },
        { "{\"a\": [[1]]}", JsonFault.None, JsonFault.None },
        { "{\"a\": [[[1]]]}", JsonFault.Syntax, JsonFault.Depth },
        { "", JsonFault.Syntax, JsonFault.Syntax },
        { "{\"a\": 1", JsonFault.Syntax, JsonFault.Syntax },
        { "{\"a\": 1,}", JsonFault.Syntax, JsonFault.Syntax },
        { "{/**/}", JsonFault.Syntax, JsonFault.Syntax },
        { "{\"a\": 01}", JsonFault.Syntax, JsonFault.Syntax },
        { "{\"a\": \"\\ud800\"}", JsonFault.Utf8, JsonFault.Utf8 },
        { "{\"\\udc00\": 1}", JsonFault.Utf8, JsonFault.Utf8 },
        { "{\"a\": \"\u00ff\"}", JsonFault.Utf8, JsonFault.Utf8 },
        { "{\"a\": {\"b\": 1, \"b\": 2}}", JsonFault.DuplicateName, JsonFault.None },
        { "{\"a\": 1, \"\\u0061\": 2}", JsonFault.DuplicateName, JsonFault.None },
        { "{} {}", JsonFault.Syntax, JsonFault.None },
        { "{\"a\": \"" + new string('x', 60) + "\"}", JsonFault.Size, JsonFault.None },
    };

    [Theory]
    [MemberData(nameof(Texts))]
    public void FaultsAreTold(string text, JsonFault whenRead, JsonFault whenChecked)
    {
        // A lone byte 0xff, which is nowhere in UTF-8.
        byte[] json = text.Contains('\u00ff') ? Encoding.Latin1.GetBytes(text) : Encoding.UTF8.GetBytes(text);
        JsonProblem? problem = null;
        Exception? error = Record.Exception(() => StrictJson.Read(json, Limits, StrictJson.Skip, found =>
        {
            problem = found;
            return new QuantException(ErrorKind.InvalidInput, "refused");
        }));
        Assert.Equal(whenRead, problem?.Fault ?? JsonFault.None);
        Assert.Equal(whenRead == JsonFault.None, error is null);
        Assert.Equal(whenChecked, StrictJson.Check(json, Limits.JsonDepth, out int offset));
        Assert.InRange(offset, 0, json.Length);
    }

    [Fact]
    public void ADuplicateIsNamedWithItsPlace()
    {
        JsonProblem problem = default;
        Assert.Throws<QuantException>(() => StrictJson.Read("{\"k\": 1, \"k\": 2}"u8, Limits, StrictJson.Skip, found =>
        {
            problem = found;
            return new QuantException(ErrorKind.InvalidInput, "refused");
        }));
        Assert.Equal(("k", 9L), (problem.Name, problem.ByteOffset));
    }

    [Fact]
    public void MembersAndElementsAreVisitedInOrder()
    {
        List<string> visited = [];
        StrictJson.Read("{\"a\": [1, 2], \"b\": {\"c\": 3}, \"d\": 4}"u8, Limits, (ref Utf8JsonReader reader) =>
        {
            HashSet<string> seen = [];
            while (StrictJson.NextMember(ref reader, seen, out string name))
            {
                visited.Add(name);
                if (name == "a")
                {
                    while (StrictJson.NextElement(ref reader)) visited.Add(StrictJson.Describe(ref reader));
                }
                else
                {
                    StrictJson.Skip(ref reader);
                }
            }
        }, static _ => new QuantException(ErrorKind.InvalidInput, "refused"));
        Assert.Equal(["a", "1", "2", "b", "d"], visited);
    }
}
