using System.Numerics;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A fixed table of short rows, each written as one word of equally wide fields, the first element in the lowest. Words ascend.</summary>
internal sealed class Codebook
{
    private readonly float[] _rows;
    private readonly ulong[] _packedRows;
    private readonly ushort[] _words;
    private readonly int _fieldBits;
    private short[]? _indexByWord;
    private ushort[]?[]? _neighboursByWord;
    private RowHalves? _halves;

    /// <param name="words">One word for each row.</param>
    /// <param name="levels">The element that each field value stands for; 3 or 4 make fields of two bits, 8 of three.</param>
    public Codebook(ReadOnlySpan<ushort> words, int rowLength, ReadOnlySpan<float> levels)
    {
        _fieldBits = levels.Length > 4 ? 3 : 2;
        _words = words.ToArray();
        RowLength = rowLength;
        Levels = levels.ToArray();
        _rows = new float[words.Length * rowLength];
        _packedRows = new ulong[words.Length];
        for (int i = 0; i < _rows.Length; i++)
        {
            (int row, int j) = Math.DivRem(i, rowLength);
            _rows[i] = levels[FieldOf(words[row], j)];
            _packedRows[row] |= (ulong)(byte)(sbyte)_rows[i] << (8 * j);
        }
    }

    public int RowLength { get; }

    public int Count => _words.Length;

    public float[] Levels { get; }

    /// <summary>All rows, back to back.</summary>
    public ReadOnlySpan<float> Rows => _rows;

    /// <summary>Words of the rows, ascending.</summary>
    public ReadOnlySpan<ushort> Words => _words;

    /// <summary>Rows of integers as bytes, the first element in the lowest.</summary>
    public ReadOnlySpan<ulong> PackedRows => _packedRows;

    /// <summary>Combinations of levels that half a row can take.</summary>
    public int HalfCount => RowLength == 8 ? Levels.Length * Levels.Length * Levels.Length * Levels.Length : Levels.Length * Levels.Length;

    /// <summary>For each row the number of its first half: <c>sum of field k x level count^k</c>.</summary>
    public ReadOnlySpan<ushort> FirstHalves => (_halves ??= MakeHalves()).First;

    /// <summary>Runs of rows with one second half, two numbers each: that half's, and the row at which the run ends.</summary>
    public ReadOnlySpan<ushort> Groups => (_halves ??= MakeHalves()).Groups;

    /// <summary>Signs of eight values from seven stored bits: the eighth makes their number even (ggml's <c>ksigns_iq2xs</c>).</summary>
    public static int EvenSigns(int sevenBits)
    {
        int bits = sevenBits & 127;
        return bits | ((BitOperations.PopCount((uint)bits) & 1) << 7);
    }

    public int FieldOf(int word, int element) => (word >> (_fieldBits * element)) & ((1 << _fieldBits) - 1);

    /// <summary>The word whose fields are <paramref name="fields"/>.</summary>
    public int WordOf(ReadOnlySpan<byte> fields)
    {
        int word = 0;
        for (int j = 0; j < fields.Length; j++) word |= fields[j] << (_fieldBits * j);
        return word;
    }

    /// <summary>The row of that word, or -1.</summary>
    public int Find(int word) => (_indexByWord ??= MakeIndex())[word];

    /// <summary>
    /// Rows near a word that has none of its own, by ascending squared distance of fields and then by row: all those at the <paramref name="shells"/> least
    /// distances. ggml's neighbour lists, each made when first asked for; a codebook is asked with one number of shells only.
    /// </summary>
    public ReadOnlySpan<ushort> Neighbours(int word, int shells) =>
        (_neighboursByWord ??= new ushort[]?[1 << (_fieldBits * RowLength)])[word] ??= MakeNeighbours(word, shells);

    private short[] MakeIndex()
    {
        short[] index = new short[1 << (_fieldBits * RowLength)];
        index.AsSpan().Fill(-1);
        for (int row = 0; row < Count; row++) index[_words[row]] = (short)row;
        return index;
    }

    private RowHalves MakeHalves()
    {
        ushort[] first = new ushort[Count];
        List<ushort> groups = [];
        for (int row = 0; row < Count; row++)
        {
            int second = HalfOf(row, RowLength / 2);
            first[row] = (ushort)HalfOf(row, 0);
            if (row == 0 || groups[^2] != second) groups.AddRange([(ushort)second, 0]);
            groups[^1] = (ushort)(row + 1);
        }

        return new(first, [.. groups]);
    }

    private int HalfOf(int row, int firstElement)
    {
        int half = 0;
        for (int j = (RowLength / 2) - 1; j >= 0; j--) half = (half * Levels.Length) + FieldOf(_words[row], firstElement + j);
        return half;
    }

    private ushort[] MakeNeighbours(int word, int shells)
    {
        int[] distances = new int[Count];
        for (int row = 0; row < Count; row++)
        {
            for (int j = 0; j < RowLength; j++)
            {
                int difference = FieldOf(_words[row], j) - FieldOf(word, j);
                distances[row] += difference * difference;
            }
        }

        int[] nearest = [.. distances.Distinct().Order().Take(shells)];
        return [.. nearest.SelectMany(distance => Enumerable.Range(0, Count).Where(row => distances[row] == distance)).Select(row => (ushort)row)];
    }

    private sealed record RowHalves(ushort[] First, ushort[] Groups);
}
