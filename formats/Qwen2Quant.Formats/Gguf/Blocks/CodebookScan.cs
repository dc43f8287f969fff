using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Block32;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Exhaustive search of a codebook for 16 sub-blocks at once, one a lane. Under a step s the row g of magnitudes x with weights w costs, but for a constant,
/// <c>s (s B - 2 A)</c> with <c>A = sum w x g</c> and <c>B = sum w g^2</c>, which know nothing of s: both are sums of two halves, so that tables of all half
/// rows make each row cost two additions, and each further step one multiplication and one comparison. Where signs must be even and are not, one value
/// has the wrong sign: the one whose w x g is least, which takes twice that from A.
/// </summary>
/// <param name="products">-2 w x of value i and lane l at <c>i * 16 + l</c>.</param>
/// <param name="weights">w likewise.</param>
/// <param name="flips">For each eight of a sub-block and each lane -2 where one sign must be wrong, else 0; empty where signs are free.</param>
internal readonly ref struct CodebookScan(Codebook codebook, ReadOnlySpan<float> products, ReadOnlySpan<float> weights, ReadOnlySpan<float> flips)
{
    /// <summary>Steps whose costs are found together.</summary>
    public const int Quad = 4;

    private readonly Codebook _codebook = codebook;

    // Read here, because a call in the loops over the codebook would send their sums to memory.
    private readonly ReadOnlySpan<ushort> _halves = codebook.Halves;
    private readonly ReadOnlySpan<float> _products = products;
    private readonly ReadOnlySpan<float> _weights = weights;
    private readonly ReadOnlySpan<float> _flips = flips;

    private int Rows => _products.Length / Search.Stride / _codebook.RowLength;

    /// <summary>The least cost of every lane under each of its steps.</summary>
    /// <param name="steps">Step k of lane l at <c>k * 16 + l</c>, a multiple of <see cref="Quad"/> steps.</param>
    [SkipLocalsInit]
    public void Costs<T>(ReadOnlySpan<float> steps, Span<float> costs) where T : unmanaged, ILanes<T>
    {
        int tableLength = _codebook.HalfCount * T.Width;
        Span<float> tables = stackalloc float[6 * tableLength];
        Span<float> earlier = stackalloc float[2 * steps.Length];
        costs.Clear();
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            for (int row = 0; row < Rows; row++)
            {
                T flip = _flips.IsEmpty ? T.Broadcast(0) : Load<T>(_flips, (row * _codebook.RowLength / 8 * Search.Stride) + g);
                bool hasFlips = FillTables<T>(row, g, flip, tables);
                bool isPaired = hasFlips && _codebook.RowLength == 4;
                for (int k = g; k < steps.Length; k += Quad * Search.Stride)
                {
                    Least<T>(tables, tableLength, steps[k..], hasFlips && !isPaired, flip, out T a, out T b, out T c, out T d);
                    if (isPaired)
                    {
                        Least<T>(tables, tableLength, steps[k..], true, T.Broadcast(-2), out T a1, out T b1, out T c1, out T d1);
                        Span<float> plain = earlier[k..], flipped = earlier[(steps.Length + k)..];
                        if ((row & 1) == 0)
                        {
                            Put(a, plain, 0);
                            Put(b, plain, 16);
                            Put(c, plain, 32);
                            Put(d, plain, 48);
                            Put(a1, flipped, 0);
                            Put(b1, flipped, 16);
                            Put(c1, flipped, 32);
                            Put(d1, flipped, 48);
                            continue;
                        }

                        a = Pair(plain, flipped, 0, a, a1, flip);
                        b = Pair(plain, flipped, 16, b, b1, flip);
                        c = Pair(plain, flipped, 32, c, c1, flip);
                        d = Pair(plain, flipped, 48, d, d1, flip);
                    }

                    Add(a, costs, k);
                    Add(b, costs, k + 16);
                    Add(c, costs, k + 32);
                    Add(d, costs, k + 48);
                }
            }
        }

        for (int i = 0; i < steps.Length; i += T.Width) Put(Load<T>(costs, i) * Load<T>(steps, i), costs, i);
    }

    /// <summary>The best row of the codebook for each row of each lane under the lane's step, and whether a sign in it is wrong.</summary>
    /// <param name="indices">Row r of lane l at <c>r * 16 + l</c>.</param>
    [SkipLocalsInit]
    public void Choose<T>(ReadOnlySpan<float> steps, Span<int> indices, Span<bool> hasFlip) where T : unmanaged, ILanes<T>
    {
        int tableLength = _codebook.HalfCount * T.Width;
        Span<float> tables = stackalloc float[6 * tableLength];
        Span<float> costs = stackalloc float[4 * Search.Stride];
        Span<int> found = stackalloc int[4 * Search.Stride];
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            T step = Load<T>(steps, g);
            for (int row = 0; row < Rows; row++)
            {
                T flip = _flips.IsEmpty ? T.Broadcast(0) : Load<T>(_flips, (row * _codebook.RowLength / 8 * Search.Stride) + g);
                bool hasFlips = FillTables<T>(row, g, flip, tables);
                bool isPaired = hasFlips && _codebook.RowLength == 4;
                int at = (row & 1) * 2 * Search.Stride;
                Best<T>(tables, tableLength, step, hasFlips && !isPaired, flip, ref costs[at], ref found[at]);
                if (isPaired) Best<T>(tables, tableLength, step, true, T.Broadcast(-2), ref costs[at + Search.Stride], ref found[at + Search.Stride]);
                if (isPaired && (row & 1) == 0) continue;
                for (int l = 0; l < T.Width; l++)
                {
                    int to = (row * Search.Stride) + g + l;
                    bool isOdd = hasFlips && _flips[(row * _codebook.RowLength / 8 * Search.Stride) + g + l] != 0;
                    if (!isPaired)
                    {
                        (indices[to], hasFlip[to]) = (found[at + l], isOdd);
                        continue;
                    }

                    // The first of the two rows has the wrong sign if that costs no more.
                    bool isFirst = isOdd && costs[16 + l] + costs[32 + l] <= costs[l] + costs[48 + l];
                    (indices[to - 16], hasFlip[to - 16]) = (found[isFirst ? 16 + l : l], isFirst);
                    (indices[to], hasFlip[to]) = (found[isOdd && !isFirst ? 48 + l : 32 + l], isOdd && !isFirst);
                }
            }
        }
    }

    /// <summary>Tables of A of both halves, B of both halves and, if any lane needs it, the greatest product (they are negative) of both halves.</summary>
    private bool FillTables<T>(int row, int g, T flip, Span<float> tables) where T : unmanaged, ILanes<T>
    {
        int half = _codebook.RowLength / 2;
        int length = _codebook.HalfCount * T.Width;
        bool hasFlips = T.TopBits(flip) != 0;
        for (int h = 0; h < 2; h++)
        {
            int first = (((row * _codebook.RowLength) + (h * half)) * Search.Stride) + g;
            FillTable<T>(_products[first..], half, _codebook.Levels, tables.Slice(h * length, length));
            FillTable<T>(_weights[first..], half, _codebook.SquaredLevels, tables.Slice((2 + h) * length, length));
            if (hasFlips) FillGreatest<T>(_products[first..], half, _codebook.Levels, tables.Slice((4 + h) * length, length));
        }

        return hasFlips;
    }

    private static void FillTable<T>(ReadOnlySpan<float> factors, int elements, float[] levels, Span<float> table) where T : unmanaged, ILanes<T>
    {
        ref float to = ref table[0];
        T factor = Load<T>(factors, 0);
        for (int l = 0; l < levels.Length; l++) T.Store(factor * T.Broadcast(levels[l]), ref Unsafe.Add(ref to, l * T.Width));
        int count = levels.Length * T.Width;
        for (int j = 1; j < elements; j++, count *= levels.Length)
        {
            factor = Load<T>(factors, j * Search.Stride);
            for (int l = levels.Length - 1; l >= 0; l--)
            {
                T added = factor * T.Broadcast(levels[l]);
                for (int i = 0; i < count; i += T.Width) T.Store(At<T>(in to, i) + added, ref Unsafe.Add(ref to, (l * count) + i));
            }
        }
    }

    private static void FillGreatest<T>(ReadOnlySpan<float> factors, int elements, float[] levels, Span<float> table) where T : unmanaged, ILanes<T>
    {
        ref float to = ref table[0];
        T factor = Load<T>(factors, 0);
        for (int l = 0; l < levels.Length; l++) T.Store(factor * T.Broadcast(levels[l]), ref Unsafe.Add(ref to, l * T.Width));
        int count = levels.Length * T.Width;
        for (int j = 1; j < elements; j++, count *= levels.Length)
        {
            factor = Load<T>(factors, j * Search.Stride);
            for (int l = levels.Length - 1; l >= 0; l--)
            {
                T added = factor * T.Broadcast(levels[l]);
                for (int i = 0; i < count; i += T.Width) T.Store(T.Max(At<T>(in to, i), added), ref Unsafe.Add(ref to, (l * count) + i));
            }
        }
    }

    /// <summary>The least of <c>step B + A</c> over the codebook, for four steps a lane.</summary>
    private void Least<T>(Span<float> tables, int length, ReadOnlySpan<float> steps, bool hasFlips, T flip, out T a, out T b, out T c, out T d) where T : unmanaged, ILanes<T>
    {
        (T stepA, T stepB, T stepC, T stepD) = (Load<T>(steps, 0), Load<T>(steps, 16), Load<T>(steps, 32), Load<T>(steps, 48));
        T leastA = T.Broadcast(float.MaxValue);
        (T leastB, T leastC, T leastD) = (leastA, leastA, leastA);
        ref float table = ref tables[0];
        ref ushort halves = ref MemoryMarshal.GetReference(_halves);
        (nint second, nint square, nint greatest) = (length, 2 * length, 4 * length);
        nint end = _halves.Length;
        for (nint i = 0; i < end; i += 2)
        {
            ref float one = ref Unsafe.Add(ref table, (nint)Unsafe.Add(ref halves, i) * T.Width);
            ref float two = ref Unsafe.Add(ref table, ((nint)Unsafe.Add(ref halves, i + 1) * T.Width) + second);
            T linear = T.Load(ref one) + T.Load(ref two);
            T squares = T.Load(ref Unsafe.Add(ref one, square)) + T.Load(ref Unsafe.Add(ref two, square));
            if (hasFlips) linear = T.MultiplyAdd(T.Max(T.Load(ref Unsafe.Add(ref one, greatest)), T.Load(ref Unsafe.Add(ref two, greatest))), flip, linear);
            leastA = T.Min(T.MultiplyAdd(stepA, squares, linear), leastA);
            leastB = T.Min(T.MultiplyAdd(stepB, squares, linear), leastB);
            leastC = T.Min(T.MultiplyAdd(stepC, squares, linear), leastC);
            leastD = T.Min(T.MultiplyAdd(stepD, squares, linear), leastD);
        }

        (a, b, c, d) = (leastA, leastB, leastC, leastD);
    }

    /// <summary>The first row of the codebook with the least <c>step B + A</c>.</summary>
    private void Best<T>(Span<float> tables, int length, T step, bool hasFlips, T flip, ref float cost, ref int index) where T : unmanaged, ILanes<T>
    {
        T least = T.Broadcast(float.MaxValue);
        T best = T.BroadcastInt(0);
        (T number, T next) = (best, T.BroadcastInt(1));
        ref float table = ref tables[0];
        ref ushort halves = ref MemoryMarshal.GetReference(_halves);
        (nint second, nint square, nint greatest) = (length, 2 * length, 4 * length);
        nint end = _halves.Length;
        for (nint i = 0; i < end; i += 2)
        {
            ref float one = ref Unsafe.Add(ref table, (nint)Unsafe.Add(ref halves, i) * T.Width);
            ref float two = ref Unsafe.Add(ref table, ((nint)Unsafe.Add(ref halves, i + 1) * T.Width) + second);
            T linear = T.Load(ref one) + T.Load(ref two);
            T squares = T.Load(ref Unsafe.Add(ref one, square)) + T.Load(ref Unsafe.Add(ref two, square));
            if (hasFlips) linear = T.MultiplyAdd(T.Max(T.Load(ref Unsafe.Add(ref one, greatest)), T.Load(ref Unsafe.Add(ref two, greatest))), flip, linear);
            T found = T.MultiplyAdd(step, squares, linear);
            best = T.Select(T.Greater(least, found), number, best);
            number = T.AddInt(number, next);
            least = T.Min(found, least);
        }

        T.Store(least, ref cost);
        T.Store(best, ref Unsafe.As<int, float>(ref index));
    }

    /// <summary>The cost of eight values in two rows: where one sign must be wrong it is in the row where that costs less.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Pair<T>(ReadOnlySpan<float> plain, ReadOnlySpan<float> flipped, int at, T later, T laterFlipped, T flip) where T : unmanaged, ILanes<T>
    {
        T earlier = Load<T>(plain, at);
        return T.Select(T.Greater(T.Broadcast(0), flip), T.Min(earlier + laterFlipped, Load<T>(flipped, at) + later), earlier + later);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Load<T>(ReadOnlySpan<float> values, int index) where T : unmanaged, ILanes<T> => At<T>(in values[0], index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put<T>(T value, Span<float> values, int index) where T : unmanaged, ILanes<T> => T.Store(value, ref values[index]);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Add<T>(T value, Span<float> values, int index) where T : unmanaged, ILanes<T> => Put(Load<T>(values, index) + value, values, index);
}
