using System.Buffers;
using System.Globalization;
using System.Text.Json;
using System.Text.Unicode;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Json;

/// <summary>Reads a value that starts at the token at hand and leaves the reader on its last token.</summary>
public delegate void JsonBody(ref Utf8JsonReader reader);

/// <summary>
/// JSON from outside, read forward: one value, no comments, no trailing commas, bounded depth, valid text, each name once.
/// What breaks that is told as a <see cref="JsonFault"/>, so that every format answers by its own rule.
/// </summary>
public static class StrictJson
{
    private const int LongestNumberShown = 64;

    /// <summary>Runs <paramref name="body"/> on the root value of a small file and demands that nothing follows it.</summary>
    /// <exception cref="QuantException">What <paramref name="refuse"/> makes of the problem, or <paramref name="body"/> throws.</exception>
    public static void Read(ReadOnlySpan<byte> json, Limits limits, JsonBody body, Func<JsonProblem, QuantException> refuse)
    {
        if (json.Length > limits.JsonFileBytes) throw refuse(new JsonProblem(JsonFault.Size, limits.JsonFileBytes));
        Utf8JsonReader reader = new(json, new JsonReaderOptions { MaxDepth = limits.JsonDepth });
        try
        {
            reader.Read();
            body(ref reader);
            while (reader.Read())
            {
            }
        }
        catch (DuplicateNameException error)
        {
            throw refuse(new JsonProblem(JsonFault.DuplicateName, reader.TokenStartIndex, error.Name, error));
        }
        catch (JsonException error)
        {
            throw refuse(new JsonProblem(JsonFault.Syntax, reader.TokenStartIndex, Error: error));
        }
        catch (InvalidOperationException error)
        {
            throw refuse(new JsonProblem(JsonFault.Utf8, reader.TokenStartIndex, Error: error));
        }
    }

    /// <summary>Within <see cref="Read"/>: moves to the next member's value and gives its name; false at the object's end.</summary>
    /// <param name="seen">The names of this object so far.</param>
    public static bool NextMember(ref Utf8JsonReader reader, HashSet<string> seen, out string name)
    {
        reader.Read();
        name = "";
        if (reader.TokenType == JsonTokenType.EndObject) return false;
        name = reader.GetString()!;
        if (!seen.Add(name)) throw new DuplicateNameException(name);
        reader.Read();
        return true;
    }

    /// <summary>Within <see cref="Read"/>: moves to the next element; false at the array's end.</summary>
    public static bool NextElement(ref Utf8JsonReader reader)
    {
        reader.Read();
        return reader.TokenType != JsonTokenType.EndArray;
    }

    /// <summary>Within <see cref="Read"/>: passes over a value, still refusing duplicate names and invalid text inside.</summary>
    public static void Skip(ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.StartObject)
        {
            HashSet<string> seen = new(StringComparer.Ordinal);
            while (NextMember(ref reader, seen, out _)) Skip(ref reader);
        }
        else if (reader.TokenType == JsonTokenType.StartArray)
        {
            while (NextElement(ref reader)) Skip(ref reader);
        }
        else if (reader.TokenType == JsonTokenType.String)
        {
            DemandText(ref reader);
        }
    }

    /// <summary>
    /// Checks in one pass, which keeps nothing, that <paramref name="json"/> starts with one well-formed object of valid characters.
    /// Names may repeat: telling that takes memory, and is left to the format.
    /// </summary>
    /// <param name="offset">Where the fault is, or, without one, the first byte after the object.</param>
    public static JsonFault Check(ReadOnlySpan<byte> json, int maximumDepth, out int offset)
    {
        offset = 0;
        if (json.IsEmpty || json[0] != (byte)'{') return JsonFault.Syntax;
        Utf8JsonReader reader = NewReader(json, maximumDepth);
        try
        {
            do
            {
                reader.Read();
                offset = (int)reader.TokenStartIndex;
                switch (reader.TokenType)
                {
                    case JsonTokenType.StartObject or JsonTokenType.StartArray when reader.CurrentDepth >= maximumDepth:
                        return JsonFault.Depth;
                    case JsonTokenType.PropertyName or JsonTokenType.String when reader.ValueIsEscaped && !IsText(ref reader):
                        return JsonFault.Utf8;
                }
            }
            while (reader.CurrentDepth > 0 || reader.TokenType != JsonTokenType.EndObject);
        }
        catch (JsonException)
        {
            offset = (int)reader.BytesConsumed;
            return JsonFault.Syntax;
        }

        offset = (int)reader.BytesConsumed;
        return Utf8.IsValid(json[..offset]) ? JsonFault.None : JsonFault.Utf8;
    }

    /// <summary>A reader of a text that <see cref="Check"/> or <see cref="Read"/> has passed.</summary>
    // One level deeper than allowed, so that exceeding it is our fault to name and not a syntax error.
    public static Utf8JsonReader NewReader(ReadOnlySpan<byte> json, int maximumDepth) =>
        new(json, new JsonReaderOptions { MaxDepth = maximumDepth + 1 });

    /// <summary>A number in plain digits that fits a non-negative <see cref="long"/>: no sign, fraction or exponent.</summary>
    public static bool TryGetWhole(ref Utf8JsonReader reader, out long value)
    {
        value = 0;
        return reader.TokenType == JsonTokenType.Number &&
            long.TryParse(reader.ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out value);
    }

    /// <summary>The token at hand as it stands in the file, for "found" in a message.</summary>
    public static string Describe(ref Utf8JsonReader reader) => reader.TokenType switch
    {
        JsonTokenType.StartObject => "an object",
        JsonTokenType.StartArray => "an array",
        JsonTokenType.String => $"\"{reader.GetString()}\"",
        _ => System.Text.Encoding.ASCII.GetString(reader.ValueSpan[..Math.Min(reader.ValueSpan.Length, LongestNumberShown)]),
    };

    private static bool IsText(ref Utf8JsonReader reader)
    {
        try
        {
            DemandText(ref reader);
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
    }

    private static void DemandText(ref Utf8JsonReader reader)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(reader.ValueSpan.Length);
        try
        {
            reader.CopyString(buffer.AsSpan());
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private sealed class DuplicateNameException(string name) : JsonException
    {
        public string Name { get; } = name;
    }
}
