using System.Numerics;
using System.Text;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Tokens by id in the spelling of the files: byte-level for <see cref="TokenKind.Normal"/>, plain for the others.
/// Texts lie in one array; a table finds an id by its text. Immutable and thread-safe.
/// </summary>
public sealed class Vocabulary
{
    private readonly byte[] _texts;
    private readonly int[] _starts;
    private readonly int[] _lengths;
    private readonly TokenKind[] _kinds;

    /// <summary>Hash in the high half, id + 1 in the low one; 0 is free.</summary>
    private readonly ulong[] _slots;

    /// <summary>Takes the arrays over; text <c>i</c> is <paramref name="lengths"/>[i] bytes of UTF-8 at <paramref name="starts"/>[i].</summary>
    /// <param name="duplicate">The first pair of ids with one text, or null.</param>
    internal Vocabulary(byte[] texts, int[] starts, int[] lengths, TokenKind[] kinds, out (int First, int Second)? duplicate)
    {
        _texts = texts;
        _starts = starts;
        _lengths = lengths;
        _kinds = kinds;
        _slots = new ulong[BitOperations.RoundUpToPowerOf2((uint)Math.Max(starts.Length + (starts.Length / 2), 16))];
        duplicate = null;
        for (int id = 0; id < starts.Length; id++)
        {
            int found = FindSlot(Utf8(id), out int slot, out uint hash);
            if (found >= 0) duplicate ??= (found, id);
            else _slots[slot] = ((ulong)hash << 32) | (uint)(id + 1);
        }
    }

    /// <summary>Tokens; ids are 0 to this - 1.</summary>
    public int Count => _starts.Length;

    public TokenKind Kind(int id) => _kinds[id];

    public ReadOnlySpan<byte> Utf8(int id) => _texts.AsSpan(_starts[id], _lengths[id]);

    public string Text(int id) => Encoding.UTF8.GetString(Utf8(id));

    /// <summary>The id of a text, or -1.</summary>
    public int Find(ReadOnlySpan<byte> utf8) => FindSlot(utf8, out _, out _);

    /// <inheritdoc cref="Find(ReadOnlySpan{byte})"/>
    public int Find(string text) => Find(Encoding.UTF8.GetBytes(text));

    /// <summary>Ids up to and with the last one that is not <see cref="TokenKind.Unused"/>.</summary>
    public int UsedCount
    {
        get
        {
            int count = Count;
            while (count > 0 && _kinds[count - 1] == TokenKind.Unused) count--;
            return count;
        }
    }

    private int FindSlot(ReadOnlySpan<byte> utf8, out int slot, out uint hash)
    {
        hash = TextHash.Compute(utf8);
        int mask = _slots.Length - 1;
        for (slot = (int)(hash & mask); _slots[slot] != 0; slot = (slot + 1) & mask)
        {
            if ((uint)(_slots[slot] >> 32) != hash) continue;
            int id = (int)(uint)_slots[slot] - 1;
            if (Utf8(id).SequenceEqual(utf8)) return id;
        }

        return -1;
    }
}
