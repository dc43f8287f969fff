using System.Buffers;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Finds added tokens in text: the leftmost, and of those that begin there the longest. Immutable.</summary>
internal sealed class AddedTokenMatcher
{
    private readonly SearchValues<byte> _firstBytes;
    private readonly (byte[] Text, int Id)[]?[] _byFirstByte = new (byte[], int)[]?[256];

    private AddedTokenMatcher(IEnumerable<(byte[] Text, int Id)> tokens)
    {
        foreach (IGrouping<byte, (byte[] Text, int Id)> group in tokens.GroupBy(token => token.Text[0]))
        {
            _byFirstByte[group.Key] = [.. group.OrderByDescending(token => token.Text.Length)];
        }

        _firstBytes = SearchValues.Create([.. Enumerable.Range(0, 256).Where(value => _byFirstByte[value] is not null).Select(value => (byte)value)]);
    }

    /// <summary>A matcher of non-empty tokens, or null where there are none.</summary>
    public static AddedTokenMatcher? Create(IReadOnlyCollection<(byte[] Text, int Id)> tokens) =>
        tokens.Count == 0 ? null : new AddedTokenMatcher(tokens);

    public bool TryFind(ReadOnlySpan<byte> text, int from, out int start, out int length, out int id)
    {
        for (start = from; start < text.Length; start++)
        {
            int skip = text[start..].IndexOfAny(_firstBytes);
            if (skip < 0) break;
            start += skip;
            foreach ((byte[] token, int tokenId) in _byFirstByte[text[start]]!)
            {
                if (!text[start..].StartsWith(token)) continue;
                length = token.Length;
                id = tokenId;
                return true;
            }
        }

        start = text.Length;
        length = 0;
        id = -1;
        return false;
    }
}
