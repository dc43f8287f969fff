using System.Globalization;
using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Forward reading of tokenizer files: no duplicate names in an object, no comments, bounded depth, errors with a rule.</summary>
internal static class StrictReader
{
    public delegate void Body(ref Utf8JsonReader reader);

    /// <summary>Runs <paramref name="body"/> on the root value and demands that nothing follows it.</summary>
    public static void Read(string file, ReadOnlySpan<byte> json, Limits limits, Body body)
    {
        if (json.StartsWith("\uFEFF"u8)) json = json[3..];
        if (json.Length > limits.JsonFileBytes)
        {
            throw TokenizerRules.Invalid(file, "the file is too large to be a tokenizer",
                string.Create(CultureInfo.InvariantCulture, $"{json.Length} bytes"),
                string.Create(CultureInfo.InvariantCulture, $"at most {limits.JsonFileBytes} bytes"));
        }

        Utf8JsonReader reader = new(json, new JsonReaderOptions { MaxDepth = limits.JsonDepth });
        try
        {
            reader.Read();
            body(ref reader);
            while (reader.Read())
            {
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            throw new QuantException(ErrorKind.InvalidInput, $"is not valid JSON: {error.Message}", error)
            {
                Rule = TokenizerRules.Tokenizer,
                Path = file,
                ByteOffset = reader.TokenStartIndex,
            };
        }
    }

    public static void ExpectObject(string file, ref Utf8JsonReader reader, string what) => Expect(file, ref reader, JsonTokenType.StartObject, what, "an object");

    public static void ExpectArray(string file, ref Utf8JsonReader reader, string what) => Expect(file, ref reader, JsonTokenType.StartArray, what, "an array");

    /// <summary>Moves to the next member's value and gives its name; false at the object's end.</summary>
    public static bool NextMember(string file, ref Utf8JsonReader reader, HashSet<string> seen, out string name)
    {
        reader.Read();
        name = "";
        if (reader.TokenType == JsonTokenType.EndObject) return false;
        name = reader.GetString()!;
        if (!seen.Add(name)) throw TokenizerRules.Invalid(file, "an object has two members of one name", $"'{name}'", "each name once");
        reader.Read();
        return true;
    }

    /// <summary>Moves to the next element; false at the array's end.</summary>
    public static bool NextElement(ref Utf8JsonReader reader)
    {
        reader.Read();
        return reader.TokenType != JsonTokenType.EndArray;
    }

    /// <summary>Passes over a value, still refusing duplicate names inside.</summary>
    public static void Skip(string file, ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.StartObject)
        {
            HashSet<string> seen = new(StringComparer.Ordinal);
            while (NextMember(file, ref reader, seen, out _)) Skip(file, ref reader);
        }
        else if (reader.TokenType == JsonTokenType.StartArray)
        {
            while (NextElement(ref reader)) Skip(file, ref reader);
        }
    }

    public static string String(string file, ref Utf8JsonReader reader, string what) =>
        reader.TokenType == JsonTokenType.String ? reader.GetString()! : throw Wrong(file, ref reader, what, "a string");

    public static string? StringOrNull(string file, ref Utf8JsonReader reader, string what) =>
        reader.TokenType == JsonTokenType.Null ? null : String(file, ref reader, what);

    public static bool Boolean(string file, ref Utf8JsonReader reader, string what) =>
        reader.TokenType switch
        {
            JsonTokenType.True => true,
            JsonTokenType.False => false,
            _ => throw Wrong(file, ref reader, what, "true or false"),
        };

    /// <summary>A token's id.</summary>
    public static int Id(string file, ref Utf8JsonReader reader, string what) =>
        reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out int id) && id >= 0
            ? id
            : throw Wrong(file, ref reader, what, "an id, 0 or above");

    public static QuantException Wrong(string file, ref Utf8JsonReader reader, string what, string expected) =>
        TokenizerRules.Invalid(file, $"the value of '{TextEscape.Escape(what)}' is of the wrong kind", Describe(ref reader), expected);

    private static void Expect(string file, ref Utf8JsonReader reader, JsonTokenType type, string what, string expected)
    {
        if (reader.TokenType != type) throw Wrong(file, ref reader, what, expected);
    }

    private static string Describe(ref Utf8JsonReader reader) => reader.TokenType switch
    {
        JsonTokenType.StartObject => "an object",
        JsonTokenType.StartArray => "an array",
        JsonTokenType.String => $"the string \"{reader.GetString()}\"",
        JsonTokenType.Number => $"the number {TextEscape.Escape(reader.ValueSpan)}",
        JsonTokenType.True => "true",
        JsonTokenType.False => "false",
        _ => "null",
    };
}
