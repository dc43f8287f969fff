using System.Text.Json;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Post-processors that leave ids alone (none, ByteLevel) or put one token before the text (TemplateProcessing).</summary>
internal static class PostProcessorReader
{
    /// <summary>True when a token is put before the text, null when the file has nothing to say.</summary>
    public static bool? AddsBos(string file, ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.Null) return null;
        StrictReader.ExpectObject(file, ref reader, "post_processor");
        string type = "one without a type";
        List<string> single = [];
        bool? inner = null;
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            switch (name)
            {
                case "type":
                    type = StrictReader.String(file, ref reader, name);
                    break;
                case "single":
                    StrictReader.ExpectArray(file, ref reader, name);
                    while (StrictJson.NextElement(ref reader)) single.Add(ReadPieceKind(file, ref reader));
                    break;
                case "processors":
                    StrictReader.ExpectArray(file, ref reader, name);
                    while (StrictJson.NextElement(ref reader)) inner |= AddsBos(file, ref reader);
                    break;
                default:
                    StrictJson.Skip(ref reader);
                    break;
            }
        }

        return type switch
        {
            "ByteLevel" => null,
            "Sequence" => inner,
            "TemplateProcessing" when single is ["Sequence"] => null,
            "TemplateProcessing" when single is ["SpecialToken", "Sequence"] => true,
            "TemplateProcessing" => throw TokenizerRules.Unsupported(file, "post-processor", $"TemplateProcessing of {string.Join(", ", single)}", "at most one token before the text"),
            _ => throw TokenizerRules.Unsupported(file, "post-processor", type, "none, ByteLevel or TemplateProcessing"),
        };
    }

    /// <summary>The one member name of a piece: <c>SpecialToken</c> or <c>Sequence</c>.</summary>
    private static string ReadPieceKind(string file, ref Utf8JsonReader reader)
    {
        StrictReader.ExpectObject(file, ref reader, "single");
        string kind = "nothing";
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            kind = name;
            StrictJson.Skip(ref reader);
        }

        return kind;
    }
}
