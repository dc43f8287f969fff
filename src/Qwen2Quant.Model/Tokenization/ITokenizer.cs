namespace Qwen2Quant.Model.Tokenization;

/// <summary>Text to token ids and back. Implementations are thread-safe.</summary>
public interface ITokenizer
{
    /// <summary>Ids are 0 to this - 1.</summary>
    int VocabularySize { get; }

    /// <summary>Ids that end a generated text.</summary>
    IReadOnlySet<int> EndOfTextIds { get; }

    /// <summary>The token that belongs before a text, where the model wants one; <see cref="Encode(ReadOnlySpan{char}, bool)"/> adds nothing itself.</summary>
    int? LeadingId { get; }

    /// <summary>The ids of a text; a surrogate without its partner counts as U+FFFD.</summary>
    /// <param name="text">Any text.</param>
    /// <param name="parseSpecial">Control tokens spelled in the text become tokens; user-defined ones always do.</param>
    int[] Encode(ReadOnlySpan<char> text, bool parseSpecial);

    /// <summary>Appends the ids of UTF-8 text to <paramref name="ids"/>; invalid sequences count as U+FFFD.</summary>
    void Encode(ReadOnlySpan<byte> utf8, bool parseSpecial, List<int> ids);

    /// <summary>The bytes a token stands for: part of a character, perhaps; none for padding.</summary>
    ReadOnlySpan<byte> PieceBytes(int id);

    TokenKind Kind(int id);

    /// <summary>The id of an added token by its plain spelling, or null.</summary>
    int? FindAdded(string content);

    /// <summary>The text of ids; invalid UTF-8 becomes U+FFFD.</summary>
    /// <param name="ids">Ids below <see cref="VocabularySize"/>.</param>
    /// <param name="skipControl">Leaves control tokens out.</param>
    string Decode(ReadOnlySpan<int> ids, bool skipControl = false);
}
