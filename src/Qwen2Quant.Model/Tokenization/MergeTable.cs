using System.Numerics;
using System.Runtime.CompilerServices;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Ranks of merges by their pair of ids: one open-addressing table of packed words, built once.</summary>
internal sealed class MergeTable
{
    /// <summary>The rank of a pair that does not merge.</summary>
    public const int None = int.MaxValue;

    /// <summary>Ids and ranks are packed into one word: 21 bits each for the ids, 22 for the rank + 1.</summary>
    public const int MostTokens = 1 << IdBits;

    /// <inheritdoc cref="MostTokens"/>
    public const int MostMerges = (1 << RankBits) - 1;

    private const int IdBits = 21;
    private const int RankBits = 22;

    /// <summary>Odd, and new in every process, so that no file is made of colliding pairs.</summary>
    private static readonly ulong Multiplier = ((ulong)Random.Shared.NextInt64() | 1) ^ 0x9E3779B97F4A7C14;

    private readonly ulong[] _slots;
    private readonly int[] _results;
    private readonly int _shift;

    /// <summary>Where a pair stands twice the first counts.</summary>
    public MergeTable(ReadOnlySpan<Merge> ranked)
    {
        int bits = Math.Max(4, BitOperations.Log2((uint)Math.Max(ranked.Length, 1)) + 2);
        _shift = 64 - bits;
        _slots = new ulong[1 << bits];
        _results = new int[ranked.Length];
        for (int rank = 0; rank < ranked.Length; rank++)
        {
            Merge merge = ranked[rank];
            _results[rank] = merge.Result;
            ulong pair = Pack(merge.Left, merge.Right);
            int slot = Slot(pair);
            while (_slots[slot] != 0 && _slots[slot] >> RankBits != pair) slot = (slot + 1) & (_slots.Length - 1);
            if (_slots[slot] == 0) _slots[slot] = (pair << RankBits) | (uint)(rank + 1);
        }
    }

    /// <summary>The rank of a pair, or <see cref="None"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int Rank(int left, int right)
    {
        ulong pair = Pack(left, right);
        ulong[] slots = _slots;
        for (int slot = Slot(pair); ; slot = (slot + 1) & (slots.Length - 1))
        {
            ulong found = slots[slot];
            if (found >> RankBits == pair && found != 0) return (int)(found & MostMerges) - 1;
            if (found == 0) return None;
        }
    }

    /// <summary>The token that the merge of that rank makes.</summary>
    public int Result(int rank) => _results[rank];

    private static ulong Pack(int left, int right) => ((ulong)(uint)left << IdBits) | (uint)right;

    private int Slot(ulong pair) => (int)((pair * Multiplier) >> _shift);
}
