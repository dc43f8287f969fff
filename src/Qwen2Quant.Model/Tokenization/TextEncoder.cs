using Qwen2Quant.Model.Tokenization.Unicode;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>The working memory of one encoding at a time, and its cache of words. <see cref="BpeTokenizer"/> lends it to one thread.</summary>
internal sealed class TextEncoder(MergeTable merges, int[] byteTokens)
{
    private const int MostKept = 1 << 20;

    private readonly WordCache _cache = new();
    private readonly GrowingBuffer<byte> _normalized = new(256);

    public GrowingBuffer<int> Ids { get; } = new(1024);

    public PieceMerger Merger { get; } = new(merges, byteTokens);

    /// <summary>Appends to <see cref="Ids"/> the tokens of valid UTF-8.</summary>
    /// <param name="text">Valid UTF-8.</param>
    /// <param name="rawTokens">Added tokens that are matched before normalization.</param>
    /// <param name="normalizedTokens">Added tokens that are matched after it.</param>
    /// <param name="normalize">Bring the text between the raw tokens to Normalization Form C.</param>
    public void Encode(ReadOnlySpan<byte> text, AddedTokenMatcher? rawTokens, AddedTokenMatcher? normalizedTokens, bool normalize)
    {
        int position = 0;
        while (position < text.Length)
        {
            int start = text.Length;
            int length = 0;
            int id = -1;
            bool found = rawTokens is not null && rawTokens.TryFind(text, position, out start, out length, out id);
            EncodeFragment(text[position..start], normalizedTokens, normalize);
            if (found) Ids.Add(id);
            position = start + length;
        }
    }

    /// <summary>Empties the working memory and gives back what a long text made it grow to.</summary>
    public void Reset()
    {
        Ids.Reset(MostKept);
        _normalized.Reset(MostKept);
    }

    private void EncodeFragment(ReadOnlySpan<byte> text, AddedTokenMatcher? normalizedTokens, bool normalize)
    {
        if (normalize)
        {
            _normalized.Truncate(0);
            if (Nfc.TryNormalize(text, _normalized)) text = _normalized.Span;
        }

        int position = 0;
        while (position < text.Length)
        {
            int start = text.Length;
            int length = 0;
            int id = -1;
            bool found = normalizedTokens is not null && normalizedTokens.TryFind(text, position, out start, out length, out id);
            EncodePlain(text[position..start]);
            if (found) Ids.Add(id);
            position = start + length;
        }
    }

    private void EncodePlain(ReadOnlySpan<byte> text)
    {
        for (int start = 0; start < text.Length;)
        {
            int end = Qwen2Splitter.NextPieceEnd(text, start);
            int length = end - start;
            if (length == 1)
            {
                Ids.Add(byteTokens[text[start]]);
            }
            else if (length > WordCache.LongestPiece)
            {
                Merger.Encode(text[start..end], Ids);
            }
            else
            {
                WordCache.Key key = WordCache.Key.Of(text, start, length);
                if (!_cache.TryAppend(key, Ids))
                {
                    int before = Ids.Count;
                    Merger.Encode(text[start..end], Ids);
                    _cache.Store(key, Ids.Span[before..]);
                }
            }

            start = end;
        }
    }
}
