using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Block32;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Exhaustive search of a codebook for 16 sub-blocks at once, one a lane. Under a step s a row g for magnitudes x with weights w costs, but for a constant,
/// <c>s (s B - 2 A)</c> with <c>A = sum w x g</c> and <c>B = sum w g^2</c>. Both are sums over the halves of a row, so that a row costs what its first half
/// costs and what its second: of all rows with one second half only the least first half is wanted, one comparison each. Where signs must be
/// even and are not, one value has the wrong sign, which adds <c>4 s w x g</c> to the cost of its half.
/// </summary>
/// <param name="products">-2 w x of value i and lane l at <c>i * 16 + l</c>.</param>
/// <param name="weights">w likewise.</param>
/// <param name="flips">For each eight of a sub-block and each lane -2 where one sign must be wrong, else 0; empty where signs are free.</param>
internal readonly unsafe ref struct CodebookScan(Codebook codebook, ReadOnlySpan<float> products, ReadOnlySpan<float> weights, ReadOnlySpan<float> flips)
{
    /// <summary>Steps whose costs are found together: their tables, twice as long where signs may be wrong, leave room in the first level of the cache.</summary>
    public const int Quad = 4;

    /// <summary>Vectors of a half row: A, B and the least change by a wrong sign.</summary>
    private const int SumVectors = 3;

    private readonly ReadOnlySpan<float> _products = products;
    private readonly ReadOnlySpan<float> _weights = weights;
    private readonly ReadOnlySpan<float> _flips = flips;

    // Read once: a call in the loops over the codebook would send their sums to memory.
    private readonly ReadOnlySpan<ushort> _firstHalves = codebook.FirstHalves;
    private readonly ReadOnlySpan<ushort> _groups = codebook.Groups;
    private readonly ReadOnlySpan<float> _levels = codebook.Levels;
    private readonly int _halfLength = codebook.RowLength / 2;
    private readonly int _halfCount = codebook.HalfCount;

    private int RowCount => _products.Length / Search.Stride / (2 * _halfLength);

    /// <summary>Two rows share their signs.</summary>
    private bool IsPaired => !_flips.IsEmpty && _halfLength == 2;

    /// <summary>The least cost of every lane under each of its steps.</summary>
    /// <param name="steps">Step k of lane l at <c>k * 16 + l</c>, a multiple of <see cref="Quad"/> steps.</param>
    [SkipLocalsInit]
    public void Costs<T>(ReadOnlySpan<float> steps, Span<float> costs) where T : unmanaged, ILanes<T>
    {
        float* room = stackalloc float[RoomLength<T>()];
        float* tables = Align(room);
        Span<float> found = stackalloc float[2 * Quad * T.Width];
        Span<float> earlier = stackalloc float[2 * steps.Length];
        costs.Clear();
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            for (int row = 0; row < RowCount; row++)
            {
                T flip = FlipOf<T>(row, g);
                bool hasFlips = FillSums(row, g, flip, tables);
                for (int k = g; k < steps.Length; k += Quad * Search.Stride)
                {
                    if (hasFlips) FillFlippedCosts<T>(tables, steps[k..]);
                    else FillCosts<T>(tables, steps[k..]);
                    if (hasFlips) LeastFlipped<T>(tables, steps[k..], found);
                    else Least<T>(tables, steps[k..], found);
                    for (int n = 0; n < Quad; n++)
                    {
                        int at = k + (n * Search.Stride);
                        T cost = Load<T>(found, n * T.Width);
                        if (hasFlips)
                        {
                            T flipped = Load<T>(found, (Quad + n) * T.Width);
                            if (IsPaired && (row & 1) == 0)
                            {
                                Put(cost, earlier, at);
                                Put(flipped, earlier, steps.Length + at);
                                continue;
                            }

                            cost = IsPaired ? Pair(Load<T>(earlier, at), Load<T>(earlier, steps.Length + at), cost, flipped, flip) : flipped;
                        }

                        Put(Load<T>(costs, at) + cost, costs, at);
                    }
                }
            }
        }

        for (int i = 0; i < steps.Length; i += T.Width) Put(Load<T>(costs, i) * Load<T>(steps, i), costs, i);
    }

    /// <summary>The best row of the codebook for each row of each lane under the lane's step, and whether a sign in it is wrong.</summary>
    /// <param name="indices">Row r of lane l at <c>r * 16 + l</c>.</param>
    [SkipLocalsInit]
    public void Choose<T>(ReadOnlySpan<float> steps, Span<int> indices, Span<bool> isFlipped) where T : unmanaged, ILanes<T>
    {
        float* room = stackalloc float[RoomLength<T>()];
        float* tables = Align(room);
        // Costs and rows of two rows, with right signs and with a wrong one.
        Span<float> costs = stackalloc float[4 * T.Width];
        Span<int> rows = stackalloc int[4 * T.Width];
        isFlipped.Clear();
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            for (int row = 0; row < RowCount; row++)
            {
                int at = (row * Search.Stride) + g;
                bool hasFlips = FillSums(row, g, FlipOf<T>(row, g), tables);
                int half = hasFlips ? (row & 1) * 2 * T.Width : 0;
                BestRows<T>(tables, steps[g..], hasFlips, costs[half..], rows[half..]);
                rows.Slice(half, T.Width).CopyTo(indices[at..]);
                for (int l = 0; l < T.Width && hasFlips; l++)
                {
                    if (_flips[FlipIndex(row) + g + l] == 0 || (IsPaired && (row & 1) == 0)) continue;
                    // The first of two rows has the wrong sign if that costs no more.
                    bool isEarlier = IsPaired && costs[T.Width + l] + costs[(2 * T.Width) + l] <= costs[l] + costs[(3 * T.Width) + l];
                    int to = isEarlier ? at + l - Search.Stride : at + l;
                    (indices[to], isFlipped[to]) = (rows[isEarlier ? T.Width + l : half + T.Width + l], true);
                }
            }
        }
    }

    private int RoomLength<T>() where T : unmanaged, ILanes<T> => (((2 * SumVectors) + (2 * Quad)) * _halfCount * T.Width) + 16;

    /// <summary>The first address in it that a vector of any width may be loaded from without touching two lines of the cache.</summary>
    private static float* Align(float* room) => (float*)(((nint)room + 63) & ~63);

    private int FlipIndex(int row) => row * 2 * _halfLength / 8 * Search.Stride;

    private T FlipOf<T>(int row, int g) where T : unmanaged, ILanes<T> => _flips.IsEmpty ? T.Broadcast(0) : Load<T>(_flips, FlipIndex(row) + g);

    /// <summary>Sums of all half rows, first halves before second ones. True when a lane must have a wrong sign.</summary>
    private bool FillSums<T>(int row, int g, T flip, float* tables) where T : unmanaged, ILanes<T>
    {
        bool hasFlips = T.TopBits(flip) != 0;
        if (IsPaired) flip = T.Broadcast(-2);
        nint vector = SumVectors * T.Width;
        for (int h = 0; h < 2; h++)
        {
            float* sums = tables + (h * _halfCount * vector);
            int at = (((2 * row) + h) * _halfLength * Search.Stride) + g;
            nint count = 1;
            for (int j = 0; j < _halfLength; j++, at += Search.Stride, count *= _levels.Length)
            {
                (T product, T weight) = (Load<T>(_products, at), Load<T>(_weights, at));
                // The least level last, in place of what the others are added to.
                for (int l = _levels.Length - 1; l >= 0; l--)
                {
                    T level = T.Broadcast(_levels[l]);
                    (T a, T b) = (product * level, weight * level * level);
                    T change = a * flip;
                    float* to = sums + (l * count * vector);
                    if (j == 0)
                    {
                        Put(to, a, b, change);
                        continue;
                    }

                    float* end = sums + (count * vector);
                    if (hasFlips)
                    {
                        for (float* from = sums; from < end; from += vector, to += vector)
                        {
                            Put(to, T.Load(ref *from) + a, T.Load(ref from[T.Width]) + b, T.Min(T.Load(ref from[2 * T.Width]), change));
                        }
                    }
                    else
                    {
                        for (float* from = sums; from < end; from += vector, to += vector)
                        {
                            T.Store(T.Load(ref *from) + a, ref *to);
                            T.Store(T.Load(ref from[T.Width]) + b, ref to[T.Width]);
                        }
                    }
                }
            }
        }

        return hasFlips;
    }

    /// <summary>Costs of all first halves under four steps.</summary>
    private void FillCosts<T>(float* tables, ReadOnlySpan<float> steps) where T : unmanaged, ILanes<T>
    {
        (T step0, T step1, T step2, T step3) = (Load<T>(steps, 0), Load<T>(steps, 16), Load<T>(steps, 32), Load<T>(steps, 48));
        float* to = tables + (2 * SumVectors * _halfCount * T.Width);
        float* end = to + (Quad * _halfCount * T.Width);
        for (float* sums = tables; to < end; sums += SumVectors * T.Width, to += Quad * T.Width)
        {
            (T a, T b) = (T.Load(ref *sums), T.Load(ref sums[T.Width]));
            T.Store(T.MultiplyAdd(step0, b, a), ref *to);
            T.Store(T.MultiplyAdd(step1, b, a), ref to[T.Width]);
            T.Store(T.MultiplyAdd(step2, b, a), ref to[2 * T.Width]);
            T.Store(T.MultiplyAdd(step3, b, a), ref to[3 * T.Width]);
        }
    }

    /// <summary>Costs of all first halves under four steps, and then with a wrong sign.</summary>
    private void FillFlippedCosts<T>(float* tables, ReadOnlySpan<float> steps) where T : unmanaged, ILanes<T>
    {
        (T step0, T step1, T step2, T step3) = (Load<T>(steps, 0), Load<T>(steps, 16), Load<T>(steps, 32), Load<T>(steps, 48));
        float* to = tables + (2 * SumVectors * _halfCount * T.Width);
        float* end = to + (2 * Quad * _halfCount * T.Width);
        for (float* sums = tables; to < end; sums += SumVectors * T.Width, to += 2 * Quad * T.Width)
        {
            (T a, T b, T change) = (T.Load(ref *sums), T.Load(ref sums[T.Width]), T.Load(ref sums[2 * T.Width]));
            (T cost0, T cost1) = (T.MultiplyAdd(step0, b, a), T.MultiplyAdd(step1, b, a));
            (T cost2, T cost3) = (T.MultiplyAdd(step2, b, a), T.MultiplyAdd(step3, b, a));
            T.Store(cost0, ref *to);
            T.Store(cost1, ref to[T.Width]);
            T.Store(cost2, ref to[2 * T.Width]);
            T.Store(cost3, ref to[3 * T.Width]);
            T.Store(cost0 + change, ref to[4 * T.Width]);
            T.Store(cost1 + change, ref to[5 * T.Width]);
            T.Store(cost2 + change, ref to[6 * T.Width]);
            T.Store(cost3 + change, ref to[7 * T.Width]);
        }
    }

    /// <summary>The least cost over the codebook under each of four steps.</summary>
    private void Least<T>(float* tables, ReadOnlySpan<float> steps, Span<float> found) where T : unmanaged, ILanes<T>
    {
        T most = T.Broadcast(float.MaxValue);
        (T least0, T least1, T least2, T least3) = (most, most, most, most);
        (T step0, T step1, T step2, T step3) = (Load<T>(steps, 0), Load<T>(steps, 16), Load<T>(steps, 32), Load<T>(steps, 48));
        float* second = tables + (SumVectors * _halfCount * T.Width);
        float* costs = tables + (2 * SumVectors * _halfCount * T.Width);
        ref ushort halves = ref MemoryMarshal.GetReference(_firstHalves);
        ref ushort groups = ref MemoryMarshal.GetReference(_groups);
        nint i = 0;
        nint length = _groups.Length;
        for (nint k = 0; k < length; k += 2)
        {
            (T first0, T first1, T first2, T first3) = (most, most, most, most);
            for (nint end = Unsafe.Add(ref groups, k + 1); i < end; i++)
            {
                float* cost = costs + ((nint)Unsafe.Add(ref halves, i) * (Quad * T.Width));
                first0 = T.Min(first0, T.Load(ref *cost));
                first1 = T.Min(first1, T.Load(ref cost[T.Width]));
                first2 = T.Min(first2, T.Load(ref cost[2 * T.Width]));
                first3 = T.Min(first3, T.Load(ref cost[3 * T.Width]));
            }

            float* sums = second + ((nint)Unsafe.Add(ref groups, k) * (SumVectors * T.Width));
            (T a, T b) = (T.Load(ref *sums), T.Load(ref sums[T.Width]));
            least0 = T.Min(first0 + T.MultiplyAdd(step0, b, a), least0);
            least1 = T.Min(first1 + T.MultiplyAdd(step1, b, a), least1);
            least2 = T.Min(first2 + T.MultiplyAdd(step2, b, a), least2);
            least3 = T.Min(first3 + T.MultiplyAdd(step3, b, a), least3);
        }

        Put(least0, found, 0);
        Put(least1, found, T.Width);
        Put(least2, found, 2 * T.Width);
        Put(least3, found, 3 * T.Width);
    }

    /// <summary>The least cost over the codebook under each of four steps, without a wrong sign and then with one where it must be.</summary>
    private void LeastFlipped<T>(float* tables, ReadOnlySpan<float> steps, Span<float> found) where T : unmanaged, ILanes<T>
    {
        T most = T.Broadcast(float.MaxValue);
        (T least0, T least1, T least2, T least3, T least4, T least5, T least6, T least7) = (most, most, most, most, most, most, most, most);
        float* second = tables + (SumVectors * _halfCount * T.Width);
        float* costs = tables + (2 * SumVectors * _halfCount * T.Width);
        ref float step = ref MemoryMarshal.GetReference(steps);
        ref ushort halves = ref MemoryMarshal.GetReference(_firstHalves);
        ref ushort groups = ref MemoryMarshal.GetReference(_groups);
        nint i = 0;
        nint length = _groups.Length;
        for (nint k = 0; k < length; k += 2)
        {
            (T first0, T first1, T first2, T first3, T first4, T first5, T first6, T first7) = (most, most, most, most, most, most, most, most);
            for (nint end = Unsafe.Add(ref groups, k + 1); i < end; i++)
            {
                float* cost = costs + ((nint)Unsafe.Add(ref halves, i) * (2 * Quad * T.Width));
                first0 = T.Min(first0, T.Load(ref *cost));
                first1 = T.Min(first1, T.Load(ref cost[T.Width]));
                first2 = T.Min(first2, T.Load(ref cost[2 * T.Width]));
                first3 = T.Min(first3, T.Load(ref cost[3 * T.Width]));
                first4 = T.Min(first4, T.Load(ref cost[4 * T.Width]));
                first5 = T.Min(first5, T.Load(ref cost[5 * T.Width]));
                first6 = T.Min(first6, T.Load(ref cost[6 * T.Width]));
                first7 = T.Min(first7, T.Load(ref cost[7 * T.Width]));
            }

            float* sums = second + ((nint)Unsafe.Add(ref groups, k) * (SumVectors * T.Width));
            (T a, T b, T change) = (T.Load(ref *sums), T.Load(ref sums[T.Width]), T.Load(ref sums[2 * T.Width]));
            T second0 = T.MultiplyAdd(At<T>(in step, 0), b, a), second1 = T.MultiplyAdd(At<T>(in step, 16), b, a);
            T second2 = T.MultiplyAdd(At<T>(in step, 32), b, a), second3 = T.MultiplyAdd(At<T>(in step, 48), b, a);
            least0 = T.Min(first0 + second0, least0);
            least1 = T.Min(first1 + second1, least1);
            least2 = T.Min(first2 + second2, least2);
            least3 = T.Min(first3 + second3, least3);
            least4 = T.Min(T.Min(first4 + second0, first0 + (second0 + change)), least4);
            least5 = T.Min(T.Min(first5 + second1, first1 + (second1 + change)), least5);
            least6 = T.Min(T.Min(first6 + second2, first2 + (second2 + change)), least6);
            least7 = T.Min(T.Min(first7 + second3, first3 + (second3 + change)), least7);
        }

        Put(least0, found, 0);
        Put(least1, found, T.Width);
        Put(least2, found, 2 * T.Width);
        Put(least3, found, 3 * T.Width);
        Put(least4, found, 4 * T.Width);
        Put(least5, found, 5 * T.Width);
        Put(least6, found, 6 * T.Width);
        Put(least7, found, 7 * T.Width);
    }

    /// <summary>The first row of least cost under one step; then the same with a wrong sign where one must be.</summary>
    private void BestRows<T>(float* tables, ReadOnlySpan<float> steps, bool hasFlips, Span<float> leastCosts, Span<int> best) where T : unmanaged, ILanes<T>
    {
        T step = Load<T>(steps, 0);
        T most = T.Broadcast(float.MaxValue);
        (T least, T wrong) = (most, most);
        T zero = T.BroadcastInt(0);
        (T bestRow, T bestWrong, T row, T next) = (zero, zero, zero, T.BroadcastInt(1));
        float* second = tables + (SumVectors * _halfCount * T.Width);
        float* costs = tables + (2 * SumVectors * _halfCount * T.Width);
        float* to = costs;
        for (float* sums = tables; sums < second; sums += SumVectors * T.Width, to += 2 * T.Width)
        {
            T cost = T.MultiplyAdd(step, T.Load(ref sums[T.Width]), T.Load(ref *sums));
            T.Store(cost, ref *to);
            if (hasFlips) T.Store(cost + T.Load(ref sums[2 * T.Width]), ref to[T.Width]);
        }

        ref ushort halves = ref MemoryMarshal.GetReference(_firstHalves);
        ref ushort groups = ref MemoryMarshal.GetReference(_groups);
        nint i = 0;
        nint length = _groups.Length;
        for (nint k = 0; k < length; k += 2)
        {
            (T first, T flipped, T firstRow, T flippedRow) = (most, most, zero, zero);
            for (nint end = Unsafe.Add(ref groups, k + 1); i < end; i++, row = T.AddInt(row, next))
            {
                float* cost = costs + ((nint)Unsafe.Add(ref halves, i) * (2 * T.Width));
                T found = T.Load(ref *cost);
                firstRow = T.Select(T.Greater(first, found), row, firstRow);
                first = T.Min(found, first);
                if (!hasFlips) continue;
                found = T.Load(ref cost[T.Width]);
                flippedRow = T.Select(T.Greater(flipped, found), row, flippedRow);
                flipped = T.Min(found, flipped);
            }

            float* sums = second + ((nint)Unsafe.Add(ref groups, k) * (SumVectors * T.Width));
            T other = T.MultiplyAdd(step, T.Load(ref sums[T.Width]), T.Load(ref *sums));
            T total = first + other;
            bestRow = T.Select(T.Greater(least, total), firstRow, bestRow);
            least = T.Min(total, least);
            if (!hasFlips) continue;
            (T inFirst, T inSecond) = (flipped + other, first + (other + T.Load(ref sums[2 * T.Width])));
            T wrongRow = T.Select(T.Greater(inFirst, inSecond), firstRow, flippedRow);
            total = T.Min(inFirst, inSecond);
            bestWrong = T.Select(T.Greater(wrong, total), wrongRow, bestWrong);
            wrong = T.Min(total, wrong);
        }

        Put(least, leastCosts, 0);
        Put(wrong, leastCosts, T.Width);
        T.Store(bestRow, ref Unsafe.As<int, float>(ref best[0]));
        T.Store(bestWrong, ref Unsafe.As<int, float>(ref best[T.Width]));
    }

    /// <summary>The cost of eight values in two rows: where one sign must be wrong it is in the row where that costs less.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Pair<T>(T earlier, T earlierFlipped, T later, T laterFlipped, T flip) where T : unmanaged, ILanes<T> =>
        T.Select(T.Greater(T.Broadcast(0), flip), T.Min(earlier + laterFlipped, earlierFlipped + later), earlier + later);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put<T>(float* to, T a, T b, T change) where T : unmanaged, ILanes<T>
    {
        T.Store(a, ref *to);
        T.Store(b, ref to[T.Width]);
        T.Store(change, ref to[2 * T.Width]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Load<T>(ReadOnlySpan<float> values, int index) where T : unmanaged, ILanes<T> => At<T>(in values[0], index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put<T>(T value, Span<float> values, int index) where T : unmanaged, ILanes<T> => T.Store(value, ref values[index]);
}
