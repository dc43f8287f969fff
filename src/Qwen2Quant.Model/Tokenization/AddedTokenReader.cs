using System.Text.Json;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>An added token as tokenizer.json and tokenizer_config.json describe it.</summary>
internal static class AddedTokenReader
{
    /// <param name="id">The id where the object does not hold it.</param>
    public static AddedToken Read(string file, ref Utf8JsonReader reader, int? id)
    {
        StrictReader.ExpectObject(file, ref reader, "added token");
        string? content = null;
        bool special = false;
        bool? normalized = null;
        string? unsupported = null;
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            switch (name)
            {
                case "id":
                    id = StrictReader.Id(file, ref reader, name);
                    break;
                case "content":
                    content = StrictReader.String(file, ref reader, name);
                    break;
                case "special":
                    special = StrictReader.Boolean(file, ref reader, name);
                    break;
                case "normalized":
                    normalized = StrictReader.Boolean(file, ref reader, name);
                    break;
                case "single_word" or "lstrip" or "rstrip":
                    if (StrictReader.Boolean(file, ref reader, name)) unsupported = name;
                    break;
                default:
                    StrictJson.Skip(ref reader);
                    break;
            }
        }

        if (id is not { } known || string.IsNullOrEmpty(content)) throw TokenizerRules.Invalid(file, "an added token lacks its id or its content");
        if (unsupported is not null)
        {
            throw TokenizerRules.Unsupported(file, "matching of an added token", $"'{content}' with {unsupported}", $"{unsupported} false");
        }

        return new AddedToken(known, content, special, normalized ?? !special);
    }
}
