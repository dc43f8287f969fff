using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The tokenizer in GGUF metadata, both ways: keys, types and order of mainline's converter.</summary>
internal static class GgufTokenizerMetadata
{
    private const string Prefix = "tokenizer.ggml.";
    private const string ChatTemplateKey = "tokenizer.chat_template";

    public static TokenizerDefinition Read(GgufMetadata metadata, int vocabularySize, string path)
    {
        if (metadata.TryGetString(Prefix + "model", out string? model) && model != "gpt2")
        {
            throw new QuantException(ErrorKind.Unsupported, "the tokenizer is of another kind") { Path = path, Tensor = Prefix + "model", Found = model, Expected = "gpt2 (byte-level BPE)" };
        }

        GgufValue tokens = RequireStrings(metadata, "tokens", path);
        GgufValue merges = RequireStrings(metadata, "merges", path);
        int[] kinds = metadata.TryGetIntegerArray(Prefix + "token_type", out int[]? types) ? types : [];
        bool hasScores = metadata.TryGetFloatArray(Prefix + "scores", out float[]? scores);
        bool agree = (kinds.Length == 0 || kinds.Length == tokens.Count) && (!hasScores || scores!.Length == tokens.Count) && tokens.Count <= vocabularySize;
        if (!agree)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the token lists do not fit one another or the embedding")
            {
                Rule = PipelineRules.VocabularyAgrees,
                Path = path,
                Found = $"{tokens.Count} tokens, {kinds.Length} types, {(hasScores ? scores!.Length : 0)} scores, {vocabularySize} embedding rows",
            };
        }

        TokenizerDefinitionBuilder builder = new(path);
        for (int id = 0; id < tokens.Count; id++) builder.AddToken(id, tokens.GetUtf8(id), KindOf(kinds, id, path));
        for (int rank = 0; rank < merges.Count; rank++) builder.AddMerge(merges.GetUtf8(rank));
        string? preTokenizer = metadata.TryGetString(Prefix + "pre", out string? pre) ? pre : null;
        return builder.Build(PreTokenizers.Require(path, preTokenizer)) with
        {
            EosId = Id("eos"),
            PaddingId = Id("padding"),
            BosId = Id("bos"),
            UnknownId = Id("unknown"),
            AddBos = Flag("add_bos_token"),
            AddEos = Flag("add_eos_token"),
            ChatTemplate = metadata.TryGetString(ChatTemplateKey, out string? template) ? template : null,
            NamedChatTemplates = ReadNamedTemplates(metadata),
        };

        int? Id(string name) => metadata.TryGetInteger($"{Prefix}{name}_token_id", out int id) && id < tokens.Count ? id : null;

        bool? Flag(string name) => metadata.TryGetBool(Prefix + name, out bool value) ? value : null;
    }

    /// <summary>Appends rows 24 to 31 of the converter's order. The token list is as long as the embedding.</summary>
    public static void Write(GgufMetadata metadata, TokenizerDefinition tokenizer, int vocabularySize)
    {
        TokenizerDefinition padded = tokenizer.WithVocabularySize(vocabularySize);
        string[] tokens = new string[vocabularySize];
        int[] kinds = new int[vocabularySize];
        for (int id = 0; id < vocabularySize; id++)
        {
            tokens[id] = padded.Vocabulary.Text(id);
            kinds[id] = (int)padded.Vocabulary.Kind(id);
        }

        string[] merges = new string[padded.Merges.Count];
        for (int rank = 0; rank < merges.Length; rank++) merges[rank] = padded.Merges.Text(rank);
        metadata.Set(Prefix + "model", GgufValue.String("gpt2"));
        metadata.Set(Prefix + "pre", GgufValue.String(padded.PreTokenizer));
        metadata.Set(Prefix + "tokens", GgufValue.StringArray(tokens));
        metadata.Set(Prefix + "token_type", GgufValue.Array<int>(kinds));
        metadata.Set(Prefix + "merges", GgufValue.StringArray(merges));
        foreach ((string name, int id) in padded.SpecialIds) metadata.Set($"{Prefix}{name}_token_id", GgufValue.Scalar((uint)id));
        if (padded.AddBos is { } addBos) metadata.Set(Prefix + "add_bos_token", GgufValue.Scalar(addBos));
        if (padded.AddEos is { } addEos) metadata.Set(Prefix + "add_eos_token", GgufValue.Scalar(addEos));
        if (padded.NamedChatTemplates.Count > 0)
        {
            metadata.Set(ChatTemplateKey + "s", GgufValue.StringArray([.. padded.NamedChatTemplates.Select(template => template.Key)]));
            foreach ((string name, string template) in padded.NamedChatTemplates) metadata.Set($"{ChatTemplateKey}.{name}", GgufValue.String(template));
        }

        if (padded.ChatTemplate is not null) metadata.Set(ChatTemplateKey, GgufValue.String(padded.ChatTemplate));
    }

    private static List<KeyValuePair<string, string>> ReadNamedTemplates(GgufMetadata metadata)
    {
        if (!metadata.TryGetStringArray(ChatTemplateKey + "s", out string[]? names)) return [];
        List<KeyValuePair<string, string>> templates = [];
        foreach (string name in names)
        {
            if (metadata.TryGetString($"{ChatTemplateKey}.{name}", out string? template)) templates.Add(new(name, template));
        }

        return templates;
    }

    private static TokenKind KindOf(int[] kinds, int id, string path)
    {
        if (kinds.Length == 0) return TokenKind.Normal;
        if (kinds[id] is >= (int)TokenKind.Normal and <= (int)TokenKind.Byte) return (TokenKind)kinds[id];
        throw new QuantException(ErrorKind.InvalidInput, "a token has an unknown type")
        {
            Rule = PipelineRules.VocabularyAgrees,
            Path = path,
            Tensor = Prefix + "token_type",
            Found = $"{kinds[id]} for token {id}",
            Expected = "1 to 6",
        };
    }

    private static GgufValue RequireStrings(GgufMetadata metadata, string name, string path)
    {
        GgufValue? value = metadata.Find(Prefix + name);
        if (value is { IsArray: true, ElementType: GgufValueType.String }) return value;
        throw new QuantException(ErrorKind.InvalidInput, value is null ? "the tokenizer lacks a list" : "a list of the tokenizer does not hold strings")
        {
            Rule = PipelineRules.VocabularyAgrees,
            Path = path,
            Tensor = Prefix + name,
            Found = value?.Describe(),
        };
    }
}
