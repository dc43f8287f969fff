using System.Text.Json;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>The two large members of tokenizer.json, read without a string for each entry.</summary>
internal static class VocabularyReader
{
    /// <summary>Reads <c>{"token": id, …}</c>. A token named twice is found by the builder.</summary>
    public static void ReadTokens(string file, ref Utf8JsonReader reader, TokenizerDefinitionBuilder builder)
    {
        StrictReader.ExpectObject(file, ref reader, "vocab");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            int room = reader.ValueSpan.Length;
            int length = reader.CopyString(builder.BeginToken(room));
            reader.Read();
            builder.EndToken(StrictReader.Id(file, ref reader, "vocab"), length, TokenKind.Normal, unused: room - length);
        }
    }

    /// <summary>Reads <c>["left right", …]</c> or <c>[["left", "right"], …]</c>.</summary>
    public static void ReadMerges(string file, ref Utf8JsonReader reader, TokenizerDefinitionBuilder builder)
    {
        StrictReader.ExpectArray(file, ref reader, "merges");
        byte[] left = [];
        byte[] right = [];
        while (StrictJson.NextElement(ref reader))
        {
            if (reader.TokenType == JsonTokenType.String)
            {
                builder.AddMerge(Copy(ref reader, ref left));
                continue;
            }

            StrictReader.ExpectArray(file, ref reader, "merges");
            ReadOnlySpan<byte> first = StrictJson.NextElement(ref reader) ? Side(file, ref reader, ref left) : default;
            ReadOnlySpan<byte> second = !first.IsEmpty && StrictJson.NextElement(ref reader) ? Side(file, ref reader, ref right) : default;
            if (second.IsEmpty || StrictJson.NextElement(ref reader))
            {
                throw TokenizerRules.Invalid(file, "a merge does not have two tokens", expected: "[\"left\", \"right\"]");
            }

            builder.AddMerge(first, second);
        }
    }

    private static ReadOnlySpan<byte> Side(string file, ref Utf8JsonReader reader, ref byte[] buffer) =>
        reader.TokenType == JsonTokenType.String ? Copy(ref reader, ref buffer) : throw StrictReader.Wrong(file, ref reader, "merges", "two strings");

    private static ReadOnlySpan<byte> Copy(ref Utf8JsonReader reader, ref byte[] buffer)
    {
        if (!reader.ValueIsEscaped) return reader.ValueSpan;
        if (buffer.Length < reader.ValueSpan.Length) buffer = new byte[reader.ValueSpan.Length * 2];
        return buffer.AsSpan(0, reader.CopyString(buffer));
    }
}
