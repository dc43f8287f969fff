using System.Globalization;
using System.Text;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// All that a tokenizer is, whatever files it came from: enough to tokenize, to write GGUF's <c>tokenizer.ggml.*</c> keys,
/// and to write Hugging Face's tokenizer files. Made by <see cref="TokenizerJson"/>, <see cref="VocabMerges"/> or <see cref="TokenizerDefinitionBuilder"/>.
/// </summary>
public sealed record TokenizerDefinition
{
    public required Vocabulary Vocabulary { get; init; }
    public required MergeList Merges { get; init; }

    /// <summary>Tokens in plain spelling, by ascending id.</summary>
    public required IReadOnlyList<AddedToken> AddedTokens { get; init; }

    /// <summary>One of <see cref="PreTokenizers"/>.</summary>
    public required string PreTokenizer { get; init; }

    /// <summary>Text is brought to Normalization Form C first.</summary>
    public bool NormalizesToNfc { get; init; } = true;

    public int? EosId { get; init; }
    public int? PaddingId { get; init; }
    public int? BosId { get; init; }
    public int? UnknownId { get; init; }

    /// <summary>Null where the files do not say, which means no.</summary>
    public bool? AddBos { get; init; }

    /// <inheritdoc cref="AddBos"/>
    public bool? AddEos { get; init; }

    /// <summary>The default chat template, in Jinja.</summary>
    public string? ChatTemplate { get; init; }

    /// <summary>Further templates by name, in the file's order.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> NamedChatTemplates { get; init; } = [];

    /// <summary>Special ids in the order GGUF files have them, with the middle of their key: <c>tokenizer.ggml.{name}_token_id</c>.</summary>
    public IEnumerable<(string Name, int Id)> SpecialIds
    {
        get
        {
            if (EosId is { } eos) yield return ("eos", eos);
            if (PaddingId is { } padding) yield return ("padding", padding);
            if (BosId is { } bos) yield return ("bos", bos);
            if (UnknownId is { } unknown) yield return ("unknown", unknown);
        }
    }

    /// <summary>Fills special ids that are missing from config.json's <c>*_token_id</c>; ids outside the vocabulary are left out.</summary>
    public TokenizerDefinition WithFallbackIds(int? eosId, int? paddingId, int? bosId) => this with
    {
        EosId = EosId ?? Inside(eosId),
        PaddingId = PaddingId ?? Inside(paddingId),
        BosId = BosId ?? Inside(bosId),
    };

    /// <summary>
    /// The same tokenizer with exactly <paramref name="vocabularySize"/> tokens, the rows of the embedding:
    /// <c>[PAD{id}]</c> of kind <see cref="TokenKind.Unused"/> is appended, or such padding is cut off.
    /// </summary>
    /// <exception cref="QuantException">HF-75: the tokenizer has more tokens than that.</exception>
    public TokenizerDefinition WithVocabularySize(int vocabularySize)
    {
        if (vocabularySize == Vocabulary.Count) return this;
        int used = Vocabulary.UsedCount;
        if (vocabularySize < used)
        {
            throw TokenizerRules.Invalid("tokenizer", "the vocabulary is larger than the embedding",
                string.Create(CultureInfo.InvariantCulture, $"{used} tokens"),
                string.Create(CultureInfo.InvariantCulture, $"at most {vocabularySize} rows"),
                "Take the tokenizer that belongs to these weights.");
        }

        int kept = Math.Min(vocabularySize, Vocabulary.Count);
        GrowingBuffer<byte> texts = new(1 << 16);
        int[] starts = new int[vocabularySize];
        int[] lengths = new int[vocabularySize];
        TokenKind[] kinds = new TokenKind[vocabularySize];
        for (int id = 0; id < vocabularySize; id++)
        {
            ReadOnlySpan<byte> text = id < kept
                ? Vocabulary.Utf8(id)
                : Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"[PAD{id}]"));
            starts[id] = texts.Count;
            lengths[id] = text.Length;
            kinds[id] = id < kept ? Vocabulary.Kind(id) : TokenKind.Unused;
            texts.Add(text);
        }

        Vocabulary padded = new(texts.ToArray(), starts, lengths, kinds, out _);
        return this with { Vocabulary = padded, Merges = new MergeList(padded, Merges.Ranked.ToArray()) };
    }

    private int? Inside(int? id) => id >= 0 && id < Vocabulary.Count ? id : null;
}
