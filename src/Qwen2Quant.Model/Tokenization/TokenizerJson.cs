using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Hugging Face's tokenizer.json of the Qwen2 family. What differs from it is refused by name, never guessed.</summary>
public static partial class TokenizerJson
{
    /// <summary>The begin-of-text token of the distilled DeepSeek R1 models.</summary>
    private const string DeepSeekBos = "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>";

    /// <summary>Reads tokenizer.json, and the special tokens and chat template that tokenizer_config.json adds.</summary>
    /// <exception cref="QuantException">HF-75.</exception>
    public static TokenizerDefinition Parse(ReadOnlySpan<byte> json, TokenizerConfigJson? config = null, string file = "tokenizer.json", Limits? limits = null)
    {
        Reading reading = new(file);
        StrictReader.Read(file, json, limits ?? Limits.Default, (ref Utf8JsonReader reader) => reading.ReadRoot(ref reader));
        return reading.Finish(config);
    }

    /// <summary>Completes a definition by what tokenizer_config.json says.</summary>
    internal static TokenizerDefinition Apply(TokenizerDefinition definition, TokenizerConfigJson? config, string file)
    {
        if (config is null) return definition;
        return definition with
        {
            EosId = Id(config.EosToken, "eos_token"),
            PaddingId = Id(config.PaddingToken, "pad_token"),
            BosId = Id(config.BosToken, "bos_token"),
            UnknownId = Id(config.UnknownToken, "unk_token"),
            AddBos = config.AddBos ?? definition.AddBos,
            AddEos = config.AddEos ?? definition.AddEos,
            ChatTemplate = config.ChatTemplate,
            NamedChatTemplates = config.NamedChatTemplates,
        };

        int? Id(string? token, string what)
        {
            if (token is null) return null;
            int id = definition.Vocabulary.Find(token);
            return id >= 0 ? id : throw TokenizerRules.Invalid(file, $"{what} is a token that the vocabulary lacks", $"'{token}'");
        }
    }

    private sealed class Reading(string file)
    {
        private readonly TokenizerDefinitionBuilder _builder = new(file);
        private bool _hasModel;
        private bool _hasPreTokenizer;
        private bool _normalizes;
        private bool? _addsBos;
        private bool _isDeepSeek;

        public void ReadRoot(ref Utf8JsonReader reader)
        {
            StrictReader.ExpectObject(file, ref reader, "the file");
            HashSet<string> seen = new(StringComparer.Ordinal);
            while (StrictJson.NextMember(ref reader, seen, out string name))
            {
                switch (name)
                {
                    case "added_tokens":
                        StrictReader.ExpectArray(file, ref reader, name);
                        while (StrictJson.NextElement(ref reader)) Add(AddedTokenReader.Read(file, ref reader, null));
                        break;
                    case "normalizer":
                        _normalizes = ReadNormalizer(ref reader);
                        break;
                    case "pre_tokenizer":
                        PreTokenizerReader.Read(file, ref reader);
                        _hasPreTokenizer = true;
                        break;
                    case "post_processor":
                        _addsBos = PostProcessorReader.AddsBos(file, ref reader);
                        break;
                    case "model":
                        ReadModel(ref reader);
                        _hasModel = true;
                        break;
                    default:
                        StrictJson.Skip(ref reader);
                        break;
                }
            }
        }

        public TokenizerDefinition Finish(TokenizerConfigJson? config)
        {
            if (!_hasModel) throw TokenizerRules.Invalid(file, "the file has no model", expected: "a member 'model'");
            if (!_hasPreTokenizer) throw TokenizerRules.Unsupported(file, "pre-tokenizer", "none", "the Split and ByteLevel of Qwen2");
            foreach (AddedToken token in config?.AddedTokens ?? []) Add(token);
            TokenizerDefinition definition = _builder.Build(_isDeepSeek ? PreTokenizers.DeepSeekR1Qwen : PreTokenizers.Qwen2);
            return Apply(definition with { NormalizesToNfc = _normalizes, AddBos = _addsBos }, config, file);
        }

        private void Add(AddedToken token)
        {
            _isDeepSeek |= string.Equals(token.Content, DeepSeekBos, StringComparison.Ordinal);
            _builder.AddAdded(token);
        }

        private bool ReadNormalizer(ref Utf8JsonReader reader)
        {
            if (reader.TokenType == JsonTokenType.Null) return false;
            string type = PreTokenizerReader.ReadType(file, ref reader, "normalizer");
            return type == "NFC" ? true : throw TokenizerRules.Unsupported(file, "normalizer", type, "NFC");
        }

        private void ReadModel(ref Utf8JsonReader reader)
        {
            StrictReader.ExpectObject(file, ref reader, "model");
            HashSet<string> seen = new(StringComparer.Ordinal);
            while (StrictJson.NextMember(ref reader, seen, out string name))
            {
                switch (name)
                {
                    case "type":
                        string type = StrictReader.String(file, ref reader, name);
                        if (type != "BPE") throw TokenizerRules.Unsupported(file, "model", type, "BPE");
                        break;
                    case "vocab":
                        if (reader.TokenType == JsonTokenType.StartArray) throw TokenizerRules.Unsupported(file, "model", "a Unigram vocabulary", "BPE");
                        VocabularyReader.ReadTokens(file, ref reader, _builder);
                        break;
                    case "merges":
                        VocabularyReader.ReadMerges(file, ref reader, _builder);
                        break;
                    case "byte_fallback" or "ignore_merges":
                        if (StrictReader.Boolean(file, ref reader, name)) throw TokenizerRules.Unsupported(file, "model", $"{name} true", "false");
                        break;
                    case "continuing_subword_prefix" or "end_of_word_suffix":
                        if (!string.IsNullOrEmpty(StrictReader.StringOrNull(file, ref reader, name)))
                        {
                            throw TokenizerRules.Unsupported(file, "model", $"a {name}", "none");
                        }

                        break;
                    case "dropout":
                        if (reader.TokenType is not JsonTokenType.Null && !(reader.TokenType is JsonTokenType.Number && reader.GetDouble() == 0))
                        {
                            throw TokenizerRules.Unsupported(file, "model", "dropout", "none");
                        }

                        break;
                    default:
                        StrictJson.Skip(ref reader);
                        break;
                }
            }

            foreach (string needed in (ReadOnlySpan<string>)["vocab", "merges"])
            {
                if (!seen.Contains(needed)) throw TokenizerRules.Invalid(file, "the model is not whole", $"no '{needed}'");
            }
        }
    }
}
