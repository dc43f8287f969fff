using System.Buffers;
using System.Text.Json;
using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>The older pair of files, vocab.json and merges.txt, which say nothing of the pre-tokenizer: tokenizer_config.json's class must.</summary>
public static class VocabMerges
{
    private const string VocabularyFile = "vocab.json";
    private const string MergesFile = "merges.txt";
    private const string AddedTokensFile = "added_tokens.json";
    private const string ConfigFile = "tokenizer_config.json";

    /// <param name="addedTokensJson">added_tokens.json, or empty; tokens that <paramref name="config"/> describes too are taken from there.</param>
    /// <exception cref="QuantException">HF-75.</exception>
    public static TokenizerDefinition Parse(
        ReadOnlySpan<byte> vocabJson, ReadOnlySpan<byte> mergesText, TokenizerConfigJson config, ReadOnlySpan<byte> addedTokensJson = default, Limits? limits = null)
    {
        limits ??= Limits.Default;
        if (config.TokenizerClass is not ("Qwen2Tokenizer" or "Qwen2TokenizerFast"))
        {
            throw TokenizerRules.Unsupported(ConfigFile, "tokenizer_class", config.TokenizerClass ?? "none", "Qwen2Tokenizer");
        }

        TokenizerDefinitionBuilder builder = new(VocabularyFile);
        StrictReader.Read(VocabularyFile, vocabJson, limits, (ref Utf8JsonReader reader) => VocabularyReader.ReadTokens(VocabularyFile, ref reader, builder));
        foreach (AddedToken token in config.AddedTokens) builder.AddAdded(token);
        if (!addedTokensJson.IsEmpty)
        {
            StrictReader.Read(AddedTokensFile, addedTokensJson, limits, (ref Utf8JsonReader reader) => ReadAddedTokens(ref reader, builder));
        }

        ReadMerges(mergesText, builder);
        return TokenizerJson.Apply(builder.Build(PreTokenizers.Qwen2), config, ConfigFile);
    }

    /// <summary>Writes vocab.json: the byte-level vocabulary without added tokens.</summary>
    public static void WriteVocabulary(TokenizerDefinition definition, IBufferWriter<byte> output)
    {
        using Utf8JsonWriter writer = new(output, TokenizerJson.Indented with { Indented = false });
        writer.WriteStartObject();
        TokenizerJson.WriteVocabulary(writer, definition);
        writer.WriteEndObject();
    }

    /// <summary>Writes merges.txt.</summary>
    public static void WriteMerges(TokenizerDefinition definition, IBufferWriter<byte> output)
    {
        output.Write("#version: 0.2\n"u8);
        for (int rank = 0; rank < definition.Merges.Count; rank++)
        {
            output.Write(Encoding.UTF8.GetBytes(definition.Merges.Text(rank)));
            output.Write("\n"u8);
        }
    }

    private static void ReadAddedTokens(ref Utf8JsonReader reader, TokenizerDefinitionBuilder builder)
    {
        StrictReader.ExpectObject(AddedTokensFile, ref reader, "the file");
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string content))
        {
            builder.AddAdded(new AddedToken(StrictReader.Id(AddedTokensFile, ref reader, content), content, IsSpecial: false, IsNormalized: false));
        }
    }

    /// <summary>One merge a line; a first line that begins with <c>#version</c> and empty lines are passed over.</summary>
    private static void ReadMerges(ReadOnlySpan<byte> text, TokenizerDefinitionBuilder builder)
    {
        bool first = true;
        while (!text.IsEmpty)
        {
            int end = text.IndexOf((byte)'\n');
            ReadOnlySpan<byte> line = (end < 0 ? text : text[..end]).TrimEnd((byte)'\r');
            text = end < 0 ? [] : text[(end + 1)..];
            if (!line.IsEmpty && !(first && line.StartsWith("#version"u8))) builder.AddMerge(line);
            first = false;
        }
    }
}
