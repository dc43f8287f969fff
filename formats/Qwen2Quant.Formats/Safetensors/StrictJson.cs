using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;

namespace Qwen2Quant.Formats.Safetensors;

internal enum JsonFault
{
    None,
    Syntax,
    Utf8,
    Depth,
}

/// <summary>What a JSON text from outside must satisfy before its members are looked at.</summary>
internal static class StrictJson
{
    private const int LongestNumberShown = 64;

    /// <summary>
    /// Checks that <paramref name="json"/> starts with one well-formed object of valid characters, without comments or trailing commas.
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
        _ => Encoding.ASCII.GetString(reader.ValueSpan[..Math.Min(reader.ValueSpan.Length, LongestNumberShown)]),
    };

    private static bool IsText(ref Utf8JsonReader reader)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(reader.ValueSpan.Length);
        try
        {
            reader.CopyString(buffer.AsSpan());
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
