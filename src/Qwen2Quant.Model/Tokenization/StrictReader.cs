using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Values of tokenizer files, read forward by <see cref="StrictJson"/>; errors carry HF-75.</summary>
internal static class StrictReader
{
    /// <summary>Runs <paramref name="body"/> on the root value and demands that nothing follows it.</summary>
    public static void Read(string file, ReadOnlySpan<byte> json, Limits limits, JsonBody body)
    {
        if (json.StartsWith("\uFEFF"u8)) json = json[3..];
        int length = json.Length;
        StrictJson.Read(json, limits, body, problem => Refuse(problem, file, length, limits));
    }

    public static void ExpectObject(string file, ref Utf8JsonReader reader, string what) => Expect(file, ref reader, JsonTokenType.StartObject, what, "an object");

    public static void ExpectArray(string file, ref Utf8JsonReader reader, string what) => Expect(file, ref reader, JsonTokenType.StartArray, what, "an array");

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
        JsonTokenType.String => $"the string {StrictJson.Describe(ref reader)}",
        JsonTokenType.Number => $"the number {StrictJson.Describe(ref reader)}",
        _ => StrictJson.Describe(ref reader),
    };

    private static QuantException Refuse(JsonProblem problem, string file, int byteLength, Limits limits) => problem.Fault switch
    {
        JsonFault.Size => TokenizerRules.Invalid(file, "the file is too large to be a tokenizer", $"{byteLength} bytes", $"at most {limits.JsonFileBytes} bytes"),
        JsonFault.DuplicateName => TokenizerRules.Invalid(file, "an object has two members of one name", $"'{problem.Name}'", "each name once"),
        _ => new(ErrorKind.InvalidInput, $"is not valid JSON: {problem.Error?.Message}", problem.Error)
        {
            Rule = TokenizerRules.Tokenizer,
            Path = file,
            ByteOffset = problem.ByteOffset,
        },
    };
}
