using System.Runtime.CompilerServices;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>An array that grows by doubling and hands out spans of itself.</summary>
internal sealed class GrowingBuffer<T>(int capacity) where T : unmanaged
{
    private T[] _items = new T[capacity];

    public int Count { get; private set; }
    public Span<T> Span => _items.AsSpan(0, Count);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Add(T item)
    {
        if (Count == _items.Length) Reserve(1);
        _items[Count++] = item;
    }

    public void Add(ReadOnlySpan<T> items) => items.CopyTo(Append(items.Length));

    /// <summary>Extends by <paramref name="count"/> items, which the caller fills.</summary>
    public Span<T> Append(int count)
    {
        if (_items.Length - Count < count) Reserve(count);
        Count += count;
        return _items.AsSpan(Count - count, count);
    }

    public void Truncate(int count) => Count = count;

    public T[] ToArray() => Span.ToArray();

    /// <summary>Empties the buffer, and forgets an array of more than <paramref name="mostKept"/> items.</summary>
    public void Reset(int mostKept)
    {
        Count = 0;
        if (_items.Length > mostKept) _items = new T[mostKept];
    }

    private void Reserve(int count)
    {
        long needed = (long)Count + count;
        Array.Resize(ref _items, checked((int)Math.Max(needed, Math.Min(2L * _items.Length, Array.MaxLength))));
    }
}
