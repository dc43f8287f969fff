using System.Globalization;
using System.Text;
using System.Text.Unicode;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Collects tokens and merges in any order and checks them once, in <see cref="Build"/>.</summary>
/// <param name="file">What errors name as the path.</param>
public sealed class TokenizerDefinitionBuilder(string file)
{
    private readonly GrowingBuffer<byte> _texts = new(1 << 16);
    private readonly GrowingBuffer<Entry> _entries = new(1 << 12);
    private readonly GrowingBuffer<byte> _mergeTexts = new(1 << 16);
    private readonly GrowingBuffer<(int Start, int LeftLength, int RightLength)> _merges = new(1 << 12);
    private readonly Dictionary<int, AddedToken> _added = [];

    private readonly record struct Entry(int Id, int Start, int Length, TokenKind Kind);

    /// <summary>Adds an entry of the byte-level vocabulary, or one of GGUF's token list.</summary>
    public void AddToken(int id, ReadOnlySpan<byte> utf8, TokenKind kind = TokenKind.Normal)
    {
        utf8.CopyTo(_texts.Append(utf8.Length));
        EndToken(id, utf8.Length, kind);
    }

    /// <inheritdoc cref="AddToken(int, ReadOnlySpan{byte}, TokenKind)"/>
    public void AddToken(int id, string text, TokenKind kind = TokenKind.Normal) => AddToken(id, Encoding.UTF8.GetBytes(text), kind);

    /// <summary>Adds a token in plain spelling. The same one twice, or one the vocabulary has under the same id, is one token.</summary>
    public void AddAdded(AddedToken token)
    {
        if (_added.TryAdd(token.Id, token)) return;
        if (!string.Equals(_added[token.Id].Content, token.Content, StringComparison.Ordinal))
        {
            throw DuplicateId(token.Id, _added[token.Id].Content, token.Content);
        }
    }

    /// <summary>Appends a merge in the spelling <c>left right</c>.</summary>
    /// <exception cref="QuantException">HF-75: not two tokens and one space.</exception>
    public void AddMerge(ReadOnlySpan<byte> pair)
    {
        int space = pair.IndexOf((byte)' ');
        if (space <= 0 || space == pair.Length - 1 || pair[(space + 1)..].Contains((byte)' '))
        {
            throw TokenizerRules.Invalid(file, $"merge {_merges.Count} is not two tokens with one space between", TextEscape.Escape(pair));
        }

        AddMerge(pair[..space], pair[(space + 1)..]);
    }

    /// <inheritdoc cref="AddMerge(ReadOnlySpan{byte})"/>
    public void AddMerge(string pair) => AddMerge(Encoding.UTF8.GetBytes(pair));

    /// <summary>Appends a merge of two tokens.</summary>
    public void AddMerge(ReadOnlySpan<byte> left, ReadOnlySpan<byte> right)
    {
        _merges.Add((_mergeTexts.Count, left.Length, right.Length));
        _mergeTexts.Add(left);
        _mergeTexts.Add(right);
    }

    /// <summary>Room for a token's text of at most <paramref name="mostBytes"/>; <see cref="EndToken"/> must follow.</summary>
    internal Span<byte> BeginToken(int mostBytes) => _texts.Append(mostBytes);

    /// <summary>Ends the token that lies at the end of the texts; <paramref name="unused"/> bytes of its room are given back.</summary>
    internal void EndToken(int id, int length, TokenKind kind, int unused = 0)
    {
        if (id < 0) throw TokenizerRules.Invalid(file, "a token's id is negative", id.ToString(CultureInfo.InvariantCulture));
        _texts.Truncate(_texts.Count - unused);
        _entries.Add(new Entry(id, _texts.Count - length, length, kind));
    }

    /// <summary>Checks ids and merges. Tokens of the kinds control, user-defined and unknown become added tokens.</summary>
    /// <exception cref="QuantException">HF-75, naming the id, token or merge concerned.</exception>
    public TokenizerDefinition Build(string preTokenizer)
    {
        PreTokenizers.Require(file, preTokenizer);
        AppendAdded();
        (int[] starts, int[] lengths, TokenKind[] kinds) = OrderById();
        byte[] texts = _texts.ToArray();
        if (!Utf8.IsValid(texts)) throw TokenizerRules.Invalid(file, "a token is not UTF-8");
        MarkPadding(texts, starts, lengths, kinds);
        Vocabulary vocabulary = new(texts, starts, lengths, kinds, out (int First, int Second)? duplicate);
        if (duplicate is { } ids)
        {
            throw TokenizerRules.Invalid(file, "two ids have the same token",
                string.Create(CultureInfo.InvariantCulture, $"ids {ids.First} and {ids.Second} are both '{vocabulary.Text(ids.First)}'"), "each token once");
        }

        List<AddedToken> added = [];
        for (int id = 0; id < kinds.Length; id++)
        {
            if (kinds[id] is not (TokenKind.Control or TokenKind.UserDefined or TokenKind.Unknown)) continue;
            added.Add(_added.GetValueOrDefault(id) ?? new AddedToken(id, vocabulary.Text(id), kinds[id] != TokenKind.UserDefined));
        }

        return new TokenizerDefinition
        {
            Vocabulary = vocabulary,
            Merges = ResolveMerges(vocabulary),
            AddedTokens = added,
            PreTokenizer = preTokenizer,
        };
    }

    private void AppendAdded()
    {
        Dictionary<int, int> places = [];
        Span<Entry> entries = _entries.Span;
        for (int i = 0; i < entries.Length && _added.Count > 0; i++)
        {
            if (_added.ContainsKey(entries[i].Id)) places.TryAdd(entries[i].Id, i);
        }

        foreach (AddedToken token in _added.Values.OrderBy(token => token.Id))
        {
            if (!places.TryGetValue(token.Id, out int place))
            {
                AddToken(token.Id, token.Content, token.Kind);
                continue;
            }

            Entry entry = _entries.Span[place];
            string text = Encoding.UTF8.GetString(_texts.Span.Slice(entry.Start, entry.Length));
            if (!string.Equals(text, token.Content, StringComparison.Ordinal)) throw DuplicateId(token.Id, text, token.Content);
            _entries.Span[place] = entry with { Kind = token.Kind };
        }
    }

    private (int[] Starts, int[] Lengths, TokenKind[] Kinds) OrderById()
    {
        int count = _entries.Count;
        if (count == 0) throw TokenizerRules.Invalid(file, "the vocabulary is empty");
        int[] starts = new int[count];
        int[] lengths = new int[count];
        TokenKind[] kinds = new TokenKind[count];
        int outside = -1;
        foreach (Entry entry in _entries.Span)
        {
            if (entry.Id >= count)
            {
                outside = Math.Max(outside, entry.Id);
                continue;
            }

            if (kinds[entry.Id] != 0)
            {
                throw DuplicateId(entry.Id, Text(starts[entry.Id], lengths[entry.Id]), Text(entry.Start, entry.Length));
            }

            starts[entry.Id] = entry.Start;
            lengths[entry.Id] = entry.Length;
            kinds[entry.Id] = entry.Kind;
        }

        if (outside >= 0)
        {
            throw TokenizerRules.Invalid(file, "the ids have a hole",
                string.Create(CultureInfo.InvariantCulture, $"{count} tokens, the largest id is {outside}, the first missing one {Array.IndexOf(kinds, (TokenKind)0)}"),
                "every id from 0 to the largest");
        }

        return (starts, lengths, kinds);

        string Text(int start, int length) => Encoding.UTF8.GetString(_texts.Span.Slice(start, length));
    }

    /// <summary>Some converters type the padding after the last token as user-defined: no text may produce it.</summary>
    private static void MarkPadding(byte[] texts, int[] starts, int[] lengths, TokenKind[] kinds)
    {
        for (int id = kinds.Length - 1; id >= 0; id--)
        {
            ReadOnlySpan<byte> text = texts.AsSpan(starts[id], lengths[id]);
            bool padding = text.Length > 5 && text.StartsWith("[PAD"u8) && text.EndsWith("]"u8) && text[4..].IndexOfAnyExceptInRange((byte)'0', (byte)'9') == text.Length - 5;
            if (kinds[id] != TokenKind.Unused && !(kinds[id] == TokenKind.UserDefined && padding)) return;
            kinds[id] = TokenKind.Unused;
        }
    }

    private MergeList ResolveMerges(Vocabulary vocabulary)
    {
        Merge[] merges = new Merge[_merges.Count];
        Span<byte> texts = _mergeTexts.Span;
        for (int rank = 0; rank < merges.Length; rank++)
        {
            (int start, int leftLength, int rightLength) = _merges.Span[rank];
            ReadOnlySpan<byte> both = texts.Slice(start, leftLength + rightLength);
            Merge merge = new(vocabulary.Find(both[..leftLength]), vocabulary.Find(both[leftLength..]), vocabulary.Find(both));
            if (merge.Left < 0 || merge.Right < 0 || merge.Result < 0)
            {
                ReadOnlySpan<byte> missing = merge.Left < 0 ? both[..leftLength] : merge.Right < 0 ? both[leftLength..] : both;
                throw TokenizerRules.Invalid(file, $"merge {rank} names a token that the vocabulary lacks", Encoding.UTF8.GetString(missing));
            }

            merges[rank] = merge;
        }

        return new MergeList(vocabulary, merges);
    }

    private QuantException DuplicateId(int id, string first, string second) =>
        TokenizerRules.Invalid(file, $"two tokens have id {id}", $"'{first}' and '{second}'", "each id once");
}
