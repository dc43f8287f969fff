using System.Buffers;
using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Unicode;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model.Tokenization.Unicode;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Qwen2's byte-level byte-pair encoding. Ids equal those of Hugging Face's fast tokenizer; added tokens are matched as
/// llama.cpp does: control tokens only where special tokens are parsed, user-defined ones always. Thread-safe.
/// </summary>
public sealed class BpeTokenizer : ITokenizer
{
    /// <summary>Tokens that llama.cpp takes as the end of a generated text by their spelling.</summary>
    private static readonly string[] EndOfTextSpellings = ["<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"];

    private readonly Vocabulary _vocabulary;
    private readonly MergeTable _merges;
    private readonly bool _normalizes;
    private readonly int[] _byteTokens = new int[256];
    private readonly byte[] _pieces;
    private readonly int[] _pieceStarts;
    private readonly Dictionary<string, int> _added;
    private readonly (AddedTokenMatcher? Raw, AddedTokenMatcher? Normalized) _allTokens;
    private readonly (AddedTokenMatcher? Raw, AddedTokenMatcher? Normalized) _userTokens;
    private readonly ConcurrentBag<TextEncoder> _encoders = [];

    /// <exception cref="QuantException">HF-75: a byte has no token, or there are more tokens or merges than the tables hold.</exception>
    public BpeTokenizer(TokenizerDefinition definition)
    {
        _vocabulary = definition.Vocabulary;
        _normalizes = definition.NormalizesToNfc;
        if (_vocabulary.Count > MergeTable.MostTokens || definition.Merges.Count > MergeTable.MostMerges)
        {
            throw TokenizerRules.Invalid("tokenizer", "the vocabulary is too large",
                string.Create(CultureInfo.InvariantCulture, $"{_vocabulary.Count} tokens, {definition.Merges.Count} merges"),
                string.Create(CultureInfo.InvariantCulture, $"at most {MergeTable.MostTokens} and {MergeTable.MostMerges}"));
        }

        for (int value = 0; value < 256; value++)
        {
            char spelling = ByteAlphabet.Spell((byte)value);
            int id = _vocabulary.Find([.. Encoding.UTF8.GetBytes([spelling])]);
            if (id < 0 || _vocabulary.Kind(id) != TokenKind.Normal)
            {
                throw TokenizerRules.Invalid("tokenizer", string.Create(CultureInfo.InvariantCulture, $"byte 0x{value:X2} has no token"), expected: $"a token '{spelling}'");
            }

            _byteTokens[value] = id;
        }

        _merges = new MergeTable(definition.Merges.Ranked);
        (_pieces, _pieceStarts) = BuildPieces(_vocabulary);
        _added = definition.AddedTokens.ToDictionary(token => token.Content, token => token.Id, StringComparer.Ordinal);
        _allTokens = Matchers(definition, definition.AddedTokens);
        _userTokens = Matchers(definition, definition.AddedTokens.Where(token => _vocabulary.Kind(token.Id) == TokenKind.UserDefined));
        LeadingId = definition.AddBos == true ? definition.BosId : null;
        EndOfTextIds = EndOfTextSpellings.Select(FindAdded).Append(definition.EosId).OfType<int>().ToHashSet();
    }

    public int VocabularySize => _vocabulary.Count;
    public IReadOnlySet<int> EndOfTextIds { get; }
    public int? LeadingId { get; }

    public int[] Encode(ReadOnlySpan<char> text, bool parseSpecial)
    {
        int length = Encoding.UTF8.GetByteCount(text);
        byte[] utf8 = ArrayPool<byte>.Shared.Rent(length);
        TextEncoder encoder = Rent();
        try
        {
            // replaces a lone surrogate by U+FFFD
            EncodeValid(encoder, utf8.AsSpan(0, Encoding.UTF8.GetBytes(text, utf8)), parseSpecial);
            return encoder.Ids.ToArray();
        }
        finally
        {
            Return(encoder);
            ArrayPool<byte>.Shared.Return(utf8);
        }
    }

    public void Encode(ReadOnlySpan<byte> utf8, bool parseSpecial, List<int> ids)
    {
        if (!Utf8.IsValid(utf8)) utf8 = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(utf8));
        TextEncoder encoder = Rent();
        try
        {
            EncodeValid(encoder, utf8, parseSpecial);
            int before = ids.Count;
            CollectionsMarshal.SetCount(ids, before + encoder.Ids.Count);
            encoder.Ids.Span.CopyTo(CollectionsMarshal.AsSpan(ids)[before..]);
        }
        finally
        {
            Return(encoder);
        }
    }

    public ReadOnlySpan<byte> PieceBytes(int id) => _pieces.AsSpan(_pieceStarts[id].._pieceStarts[id + 1]);

    public TokenKind Kind(int id) => _vocabulary.Kind(id);

    public int? FindAdded(string content) => _added.TryGetValue(content, out int id) ? id : null;

    public string Decode(ReadOnlySpan<int> ids, bool skipControl = false)
    {
        GrowingBuffer<byte> bytes = new(Math.Max(16, ids.Length));
        foreach (int id in ids)
        {
            if (!skipControl || Kind(id) is not (TokenKind.Control or TokenKind.Unknown)) bytes.Add(PieceBytes(id));
        }

        return Encoding.UTF8.GetString(bytes.Span);
    }

    /// <summary>Working memory of its own for a test of its cost.</summary>
    internal TextEncoder CreateEncoder() => new(_merges, _byteTokens);

    internal void EncodeValid(TextEncoder encoder, ReadOnlySpan<byte> utf8, bool parseSpecial)
    {
        (AddedTokenMatcher? raw, AddedTokenMatcher? normalized) = parseSpecial ? _allTokens : _userTokens;
        encoder.Encode(utf8, raw, normalized, _normalizes);
    }

    private TextEncoder Rent() => _encoders.TryTake(out TextEncoder? encoder) ? encoder : CreateEncoder();

    private void Return(TextEncoder encoder)
    {
        encoder.Reset();
        _encoders.Add(encoder);
    }

    private static (AddedTokenMatcher? Raw, AddedTokenMatcher? Normalized) Matchers(TokenizerDefinition definition, IEnumerable<AddedToken> tokens)
    {
        List<(byte[], int)> raw = [];
        List<(byte[], int)> normalized = [];
        foreach (AddedToken token in tokens)
        {
            byte[] text = Encoding.UTF8.GetBytes(token.Content);
            if (!token.IsNormalized || !definition.NormalizesToNfc)
            {
                raw.Add((text, token.Id));
                continue;
            }

            GrowingBuffer<byte> composed = new(text.Length);
            normalized.Add((Nfc.TryNormalize(text, composed) ? composed.ToArray() : text, token.Id));
        }

        return (AddedTokenMatcher.Create(raw), AddedTokenMatcher.Create(normalized));
    }

    private static (byte[] Pieces, int[] Starts) BuildPieces(Vocabulary vocabulary)
    {
        GrowingBuffer<byte> pieces = new(1 << 16);
        int[] starts = new int[vocabulary.Count + 1];
        for (int id = 0; id < vocabulary.Count; id++)
        {
            ReadOnlySpan<byte> text = vocabulary.Utf8(id);
            switch (vocabulary.Kind(id))
            {
                case TokenKind.Normal:
                    int end = pieces.Count;
                    pieces.Truncate(end + ByteAlphabet.Decode(text, pieces.Append(text.Length)));
                    break;
                case TokenKind.Control or TokenKind.UserDefined or TokenKind.Unknown:
                    pieces.Add(text);
                    break;
                default:
                    break;
            }

            starts[id + 1] = pieces.Count;
        }

        return (pieces.ToArray(), starts);
    }
}
