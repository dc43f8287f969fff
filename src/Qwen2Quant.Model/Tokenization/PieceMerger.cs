namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Byte-pair encoding of one piece: the merge of lowest rank first, the leftmost of equals. Not thread-safe.
/// </summary>
internal sealed class PieceMerger(MergeTable merges, int[] byteTokens)
{
    /// <summary>Up to here scanning for the lowest rank beats a heap.</summary>
    internal const int LongestScanned = 64;

    private const int MostKept = 1 << 16;

    private readonly int[] _ids = new int[LongestScanned];
    private readonly int[] _ranks = new int[LongestScanned];
    private readonly GrowingBuffer<Symbol> _symbols = new(256);
    private readonly GrowingBuffer<ulong> _heap = new(256);

    /// <summary>A token of the piece, linked to its neighbours by position; <c>Rank</c> is that of its pair with the next one.</summary>
    private struct Symbol
    {
        public int Id;
        public int Previous;
        public int Next;
        public int Rank;
    }

    /// <summary>Steps that the heap has taken, for the test of its cost.</summary>
    internal long HeapSteps { get; private set; }

    /// <summary>Appends the tokens of <paramref name="piece"/>.</summary>
    public void Encode(ReadOnlySpan<byte> piece, GrowingBuffer<int> output)
    {
        if (piece.Length <= LongestScanned) EncodeShort(piece, output);
        else EncodeLong(piece, output);
    }

    private void EncodeShort(ReadOnlySpan<byte> piece, GrowingBuffer<int> output)
    {
        Span<int> ids = _ids.AsSpan(0, piece.Length);
        Span<int> ranks = _ranks.AsSpan(0, piece.Length);
        for (int i = 0; i < piece.Length; i++) ids[i] = byteTokens[piece[i]];
        for (int i = 0; i + 1 < ids.Length; i++) ranks[i] = merges.Rank(ids[i], ids[i + 1]);
        ranks[^1] = MergeTable.None;
        while (true)
        {
            int lowest = MergeTable.None;
            int at = 0;
            for (int i = 0; i < ranks.Length; i++)
            {
                if (ranks[i] >= lowest) continue;
                lowest = ranks[i];
                at = i;
            }

            if (lowest == MergeTable.None) break;
            ids[at] = merges.Result(lowest);
            ids[(at + 2)..].CopyTo(ids[(at + 1)..]);
            ranks[(at + 1)..].CopyTo(ranks[at..]);
            ids = ids[..^1];
            ranks = ranks[..^1];
            ranks[at] = at + 1 < ids.Length ? merges.Rank(ids[at], ids[at + 1]) : MergeTable.None;
            if (at > 0) ranks[at - 1] = merges.Rank(ids[at - 1], ids[at]);
        }

        output.Add(ids);
    }

    /// <summary>
    /// A linked list and a heap of (rank, position): n log n. An entry whose rank is no longer that of its position is stale.
    /// </summary>
    private void EncodeLong(ReadOnlySpan<byte> piece, GrowingBuffer<int> output)
    {
        Span<Symbol> symbols = _symbols.Append(piece.Length);
        for (int i = 0; i < symbols.Length; i++)
        {
            bool last = i + 1 == symbols.Length;
            int id = byteTokens[piece[i]];
            int rank = last ? MergeTable.None : merges.Rank(id, byteTokens[piece[i + 1]]);
            symbols[i] = new Symbol { Id = id, Previous = i - 1, Next = last ? -1 : i + 1, Rank = rank };
            if (rank != MergeTable.None) Push(Key(rank, i));
        }

        while (_heap.Count > 0)
        {
            ulong top = Pop();
            int at = (int)(uint)top;
            int rank = (int)(top >> 32);
            if (symbols[at].Rank != rank) continue;
            int eaten = symbols[at].Next;
            symbols[at].Id = merges.Result(rank);
            symbols[at].Next = symbols[eaten].Next;
            symbols[eaten].Rank = MergeTable.None;
            if (symbols[at].Next >= 0) symbols[symbols[at].Next].Previous = at;
            Rerank(symbols, at);
            if (symbols[at].Previous >= 0) Rerank(symbols, symbols[at].Previous);
        }

        for (int i = 0; i >= 0; i = symbols[i].Next) output.Add(symbols[i].Id);
        _symbols.Reset(MostKept);
        _heap.Reset(MostKept);
    }

    private void Rerank(Span<Symbol> symbols, int at)
    {
        int next = symbols[at].Next;
        int rank = next < 0 ? MergeTable.None : merges.Rank(symbols[at].Id, symbols[next].Id);
        symbols[at].Rank = rank;
        if (rank != MergeTable.None) Push(Key(rank, at));
    }

    private static ulong Key(int rank, int at) => ((ulong)(uint)rank << 32) | (uint)at;

    private void Push(ulong key)
    {
        _heap.Add(key);
        Span<ulong> heap = _heap.Span;
        int place = heap.Length - 1;
        while (place > 0)
        {
            int parent = (place - 1) >> 1;
            HeapSteps++;
            if (heap[parent] <= key) break;
            heap[place] = heap[parent];
            place = parent;
        }

        heap[place] = key;
    }

    private ulong Pop()
    {
        Span<ulong> heap = _heap.Span;
        ulong top = heap[0];
        ulong moved = heap[^1];
        _heap.Truncate(heap.Length - 1);
        heap = heap[..^1];
        int place = 0;
        while (true)
        {
            int child = (2 * place) + 1;
            HeapSteps++;
            if (child >= heap.Length) break;
            if (child + 1 < heap.Length && heap[child + 1] < heap[child]) child++;
            if (heap[child] >= moved) break;
            heap[place] = heap[child];
            place = child;
        }

        if (heap.Length > 0) heap[place] = moved;
        return top;
    }
}
