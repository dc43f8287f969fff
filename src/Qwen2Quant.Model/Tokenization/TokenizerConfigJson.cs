using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>What tokenizer_config.json says about a tokenizer.</summary>
public sealed partial record TokenizerConfigJson
{
    public string? TokenizerClass { get; private set; }
    public string? EosToken { get; private set; }
    public string? PaddingToken { get; private set; }
    public string? BosToken { get; private set; }
    public string? UnknownToken { get; private set; }
    public bool? AddBos { get; private set; }
    public bool? AddEos { get; private set; }
    public string? ChatTemplate { get; private set; }
    public IReadOnlyList<KeyValuePair<string, string>> NamedChatTemplates { get; private set; } = [];
    public IReadOnlyList<AddedToken> AddedTokens { get; private set; } = [];

    /// <exception cref="Core.Errors.QuantException">HF-75.</exception>
    public static TokenizerConfigJson Parse(ReadOnlySpan<byte> json, string file = "tokenizer_config.json", Limits? limits = null)
    {
        TokenizerConfigJson config = new();
        StrictReader.Read(file, json, limits ?? Limits.Default, (ref Utf8JsonReader reader) => config.ReadRoot(file, ref reader));
        return config;
    }

    private void ReadRoot(string file, ref Utf8JsonReader reader)
    {
        StrictReader.ExpectObject(file, ref reader, "the file");
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            switch (name)
            {
                case "tokenizer_class":
                    TokenizerClass = StrictReader.StringOrNull(file, ref reader, name);
                    break;
                case "eos_token":
                    EosToken = ReadToken(file, ref reader, name);
                    break;
                case "pad_token":
                    PaddingToken = ReadToken(file, ref reader, name);
                    break;
                case "bos_token":
                    BosToken = ReadToken(file, ref reader, name);
                    break;
                case "unk_token":
                    UnknownToken = ReadToken(file, ref reader, name);
                    break;
                case "add_bos_token":
                    AddBos = reader.TokenType == JsonTokenType.Null ? null : StrictReader.Boolean(file, ref reader, name);
                    break;
                case "add_eos_token":
                    AddEos = reader.TokenType == JsonTokenType.Null ? null : StrictReader.Boolean(file, ref reader, name);
                    break;
                case "chat_template":
                    ReadChatTemplates(file, ref reader, name);
                    break;
                case "added_tokens_decoder":
                    AddedTokens = ReadDecoder(file, ref reader, name);
                    break;
                default:
                    StrictJson.Skip(ref reader);
                    break;
            }
        }
    }

    /// <summary>A token as a string, or as an object with <c>content</c>.</summary>
    private static string? ReadToken(string file, ref Utf8JsonReader reader, string what)
    {
        if (reader.TokenType != JsonTokenType.StartObject) return StrictReader.StringOrNull(file, ref reader, what);
        string? content = null;
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            if (name == "content") content = StrictReader.String(file, ref reader, what);
            else StrictJson.Skip(ref reader);
        }

        return content;
    }

    /// <summary>One template, or a list of <c>{"name", "template"}</c> of which the one named default is the default.</summary>
    private void ReadChatTemplates(string file, ref Utf8JsonReader reader, string what)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            ChatTemplate = StrictReader.StringOrNull(file, ref reader, what);
            return;
        }

        List<KeyValuePair<string, string>> named = [];
        while (StrictJson.NextElement(ref reader))
        {
            StrictReader.ExpectObject(file, ref reader, what);
            string? name = null;
            string? template = null;
            HashSet<string> seen = new(StringComparer.Ordinal);
            while (StrictJson.NextMember(ref reader, seen, out string member))
            {
                if (member == "name") name = StrictReader.String(file, ref reader, what);
                else if (member == "template") template = StrictReader.String(file, ref reader, what);
                else StrictJson.Skip(ref reader);
            }

            if (name is null || template is null) throw TokenizerRules.Invalid(file, "a chat template lacks its name or text");
            if (name == "default") ChatTemplate = template;
            else named.Add(new KeyValuePair<string, string>(name, template));
        }

        NamedChatTemplates = named;
    }

    private static List<AddedToken> ReadDecoder(string file, ref Utf8JsonReader reader, string what)
    {
        List<AddedToken> tokens = [];
        StrictReader.ExpectObject(file, ref reader, what);
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            if (!int.TryParse(name, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int id))
            {
                throw TokenizerRules.Invalid(file, $"a name in '{what}' is not an id", $"'{name}'");
            }

            tokens.Add(AddedTokenReader.Read(file, ref reader, id));
        }

        return tokens;
    }
}
