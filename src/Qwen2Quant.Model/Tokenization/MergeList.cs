using System.Text;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>One merge: the two tokens and what they become.</summary>
public readonly record struct Merge(int Left, int Right, int Result);

/// <summary>Merges in rank order, the first applied first.</summary>
public sealed class MergeList
{
    private readonly Vocabulary _vocabulary;
    private readonly Merge[] _merges;

    internal MergeList(Vocabulary vocabulary, Merge[] merges)
    {
        _vocabulary = vocabulary;
        _merges = merges;
    }

    public int Count => _merges.Length;

    public ReadOnlySpan<Merge> Ranked => _merges;

    /// <summary>The merge as GGUF and merges.txt write it: <c>left right</c>, a space inside a token written as U+0120 so that the separator is the only one.</summary>
    public string Text(int rank) => $"{Side(_merges[rank].Left)} {Side(_merges[rank].Right)}";

    private string Side(int id)
    {
        ReadOnlySpan<byte> utf8 = _vocabulary.Utf8(id);
        string text = Encoding.UTF8.GetString(utf8);
        return utf8.Contains((byte)' ') ? text.Replace(' ', ByteAlphabet.Space) : text;
    }
}
