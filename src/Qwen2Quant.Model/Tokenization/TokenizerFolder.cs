using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>The tokenizer of a Hugging Face folder: tokenizer.json, or vocab.json with merges.txt; with tokenizer_config.json and the chat template files.</summary>
public static class TokenizerFolder
{
    /// <summary>Names of the files that make up a tokenizer, those that are copied beside an output.</summary>
    public static IReadOnlyList<string> FileNames { get; } =
    [
        "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
        "chat_template.jinja", "chat_template.json",
    ];

    /// <exception cref="QuantException">HF-75; no tokenizer at all is one too. Or a file cannot be read.</exception>
    public static TokenizerDefinition Load(IFileLayer files, string folder, Limits? limits = null)
    {
        limits ??= Limits.Default;
        byte[]? configJson = Read("tokenizer_config.json");
        TokenizerConfigJson? config = configJson is null ? null : TokenizerConfigJson.Parse(configJson, Full("tokenizer_config.json"), limits);
        TokenizerDefinition definition;
        if (Read("tokenizer.json") is { } tokenizerJson)
        {
            definition = TokenizerJson.Parse(tokenizerJson, config, Full("tokenizer.json"), limits);
        }
        else
        {
            byte[] vocabulary = Read("vocab.json") ?? throw Missing("neither tokenizer.json nor vocab.json");
            byte[] merges = Read("merges.txt") ?? throw Missing("vocab.json without merges.txt");
            definition = VocabMerges.Parse(vocabulary, merges, config ?? throw Missing("vocab.json without tokenizer_config.json"), Read("added_tokens.json"), limits);
        }

        return ReadChatTemplate() is { } template ? definition with { ChatTemplate = template } : definition;

        string Full(string name) => Path.Combine(folder, name);

        byte[]? Read(string name) => files.FileExists(Full(name)) ? files.ReadAllBytes(Full(name), limits.JsonFileBytes) : null;

        QuantException Missing(string found) =>
            TokenizerRules.Invalid(folder, "the tokenizer is missing", found, "tokenizer.json, or vocab.json, merges.txt and tokenizer_config.json",
                "Download the model's tokenizer files into the folder.");

        string? ReadChatTemplate()
        {
            if (Read("chat_template.jinja") is { } jinja) return System.Text.Encoding.UTF8.GetString(jinja);
            if (Read("chat_template.json") is not { } json) return null;
            string file = Full("chat_template.json");
            string? found = null;
            StrictReader.Read(file, json, limits, (ref Utf8JsonReader reader) =>
            {
                StrictReader.ExpectObject(file, ref reader, "the file");
                HashSet<string> seen = new(StringComparer.Ordinal);
                while (StrictJson.NextMember(ref reader, seen, out string name))
                {
                    if (name == "chat_template") found = StrictReader.String(file, ref reader, name);
                    else StrictJson.Skip(ref reader);
                }
            });
            return found;
        }
    }
}
