using System.Text.Json;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Tells Qwen2's pre-tokenizer from all others: a Sequence of one Split by its expression, and ByteLevel.</summary>
internal static class PreTokenizerReader
{
    private const string Expected = "a Sequence of Split by Qwen2's expression and ByteLevel";

    private sealed record Part(string Type, string? Expression, string? Behavior, bool Invert, bool AddPrefixSpace, bool UseRegex, List<Part> Parts);

    public static void Read(string file, ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.Null) throw TokenizerRules.Unsupported(file, "pre-tokenizer", "none", Expected);
        Part root = ReadPart(file, ref reader);
        if (root.Type != "Sequence") throw TokenizerRules.Unsupported(file, "pre-tokenizer", root.Type, Expected);
        if (root.Parts is not [{ Type: "Split" } split, { Type: "ByteLevel" } bytes])
        {
            throw TokenizerRules.Unsupported(file, "pre-tokenizer", $"a Sequence of {string.Join(", ", root.Parts.Select(part => part.Type))}", Expected);
        }

        if (!string.Equals(split.Expression, PreTokenizers.Qwen2Expression, StringComparison.Ordinal))
        {
            throw TokenizerRules.Unsupported(file, "pre-tokenizer", $"Split by {split.Expression ?? "a string"}", PreTokenizers.Qwen2Expression);
        }

        // the expression matches every character, so keeping the matches alone is the same as isolating them
        if (split is not ({ Behavior: "Isolated", Invert: false } or { Behavior: "Removed", Invert: true }))
        {
            throw TokenizerRules.Unsupported(file, "pre-tokenizer", $"Split {split.Behavior}{(split.Invert ? ", inverted" : "")}", "Split Isolated");
        }

        if (bytes.AddPrefixSpace || bytes.UseRegex)
        {
            throw TokenizerRules.Unsupported(file, "pre-tokenizer", "ByteLevel with add_prefix_space or use_regex", "ByteLevel without");
        }
    }

    /// <summary>The <c>type</c> of an object, the rest passed over.</summary>
    public static string ReadType(string file, ref Utf8JsonReader reader, string what)
    {
        StrictReader.ExpectObject(file, ref reader, what);
        string? type = null;
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            if (name == "type") type = StrictReader.String(file, ref reader, what);
            else StrictJson.Skip(ref reader);
        }

        return type ?? "one without a type";
    }

    private static Part ReadPart(string file, ref Utf8JsonReader reader)
    {
        StrictReader.ExpectObject(file, ref reader, "pre_tokenizer");
        Part part = new("one without a type", null, null, Invert: false, AddPrefixSpace: true, UseRegex: true, []);
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            switch (name)
            {
                case "type":
                    part = part with { Type = StrictReader.String(file, ref reader, name) };
                    break;
                case "pretokenizers":
                    StrictReader.ExpectArray(file, ref reader, name);
                    while (StrictJson.NextElement(ref reader)) part.Parts.Add(ReadPart(file, ref reader));
                    break;
                case "pattern":
                    part = part with { Expression = ReadExpression(file, ref reader) };
                    break;
                case "behavior":
                    part = part with { Behavior = StrictReader.String(file, ref reader, name) };
                    break;
                case "invert":
                    part = part with { Invert = StrictReader.Boolean(file, ref reader, name) };
                    break;
                case "add_prefix_space":
                    part = part with { AddPrefixSpace = StrictReader.Boolean(file, ref reader, name) };
                    break;
                case "use_regex":
                    part = part with { UseRegex = StrictReader.Boolean(file, ref reader, name) };
                    break;
                default:
                    StrictJson.Skip(ref reader);
                    break;
            }
        }

        return part;
    }

    private static string? ReadExpression(string file, ref Utf8JsonReader reader)
    {
        StrictReader.ExpectObject(file, ref reader, "pattern");
        string? expression = null;
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            if (name == "Regex") expression = StrictReader.String(file, ref reader, name);
            else StrictJson.Skip(ref reader);
        }

        return expression;
    }
}
