using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// 16 groups of one or two blocks, each a lane, with what a search of their rows and deltas needs. Value i of group g lies at <c>16 i + g</c>, granule r of group g at
/// <c>16 r + g</c>. Values are in units of a power of two near their largest, weights in units of their largest. Sums run in index order within a lane.
/// </summary>
internal unsafe struct Iq1Lanes<TLayout, T> where TLayout : struct, IIq1Layout where T : unmanaged, ILanes<T>
{
    public const int Stride = Search.Stride;

    private const int RowLength = Iq1Grid.RowLength;
    private const int Halves = Iq1Pairs<T>.Halves;
    private const float Delta = Codebooks.Iq1Delta;

    /// <summary>Stands in for a zero that is divided by.</summary>
    private const float Tiny = 1e-30f;

    private fixed float _x[32 * Stride], _w[32 * Stride], _wx[32 * Stride], _levels[32 * Stride];
    private fixed float _tables[((2 * Halves) + 1) * Stride];
    private fixed float _sumsW[4 * Stride], _sumsX[4 * Stride], _deltas[4 * Stride], _losses[4 * Stride];
    private fixed ushort _rows[4 * Stride];

    /// <summary>Root of the weighted mean square of each group.</summary>
    public fixed float Spread[Stride];

    /// <summary>Step under which each group's rows are sought.</summary>
    public fixed float Steps[Stride];

    /// <summary>Of the codes found last: the sums of weight x value x level, where a level is grid + delta, and of weight x level^2.</summary>
    public fixed float SumsA[Stride], SumsB[Stride];

    /// <summary>The weighted sum of squares of each group.</summary>
    public fixed float Squares[Stride];

    /// <summary>Delta, row and loss of each granule. A loss is the weighted squared error less that of zeros.</summary>
    public fixed float Deltas[4 * Stride], Losses[4 * Stride];
    public fixed ushort Rows[4 * Stride];

    /// <summary>The value that 1 stands for.</summary>
    public float Unit;

    private static int Granules => TLayout.GroupGranules;
    private static bool SharesDelta => TLayout.DeltaGranules != 1;

    public void Load(ReadOnlySpan<float> values, ReadOnlySpan<float> importance)
    {
        int length = Granules * RowLength * Stride;
        Search.Transpose(values, Granules * RowLength, MemoryMarshal.CreateSpan(ref _x[0], length));
        float peak = Peak(ref _x[0], length);
        Unit = MathF.ScaleB(1, peak > 0 ? Math.Clamp(MathF.ILogB(peak), -100, 126) : 0);
        Span<float> weights = MemoryMarshal.CreateSpan(ref _w[0], length);
        if (!importance.IsEmpty) Search.Transpose(importance, Granules * RowLength, weights);
        float weightPeak = importance.IsEmpty ? 0 : Peak(ref _w[0], length);
        if (weightPeak == 0) weights.Fill(1);
        T inverse = T.Broadcast(1 / Unit);
        T weightInverse = T.Broadcast(weightPeak == 0 ? 1 : 1 / MathF.Max(weightPeak, Tiny));
        for (int g = 0; g < Stride; g += T.Width)
        {
            T total = T.Broadcast(0), squares = total;
            for (int r = 0; r < Granules; r++)
            {
                T sumW = T.Broadcast(0), sumX = sumW;
                for (int i = r * RowLength; i < (r + 1) * RowLength; i++)
                {
                    int at = (i * Stride) + g;
                    T x = Block32.At<T>(ref _x[0], at) * inverse;
                    T w = Block32.At<T>(ref _w[0], at) * weightInverse;
                    T wx = w * x;
                    T.Store(x, ref _x[at]);
                    T.Store(w, ref _w[at]);
                    T.Store(wx, ref _wx[at]);
                    sumW += w;
                    sumX += wx;
                    squares += wx * x;
                }

                T.Store(sumW, ref _sumsW[(r * Stride) + g]);
                T.Store(sumX, ref _sumsX[(r * Stride) + g]);
                total += sumW;
            }

            T.Store(squares, ref Squares[g]);
            T.Store(T.Sqrt(squares / T.Max(total, T.Broadcast(Tiny))), ref Spread[g]);
        }
    }

    /// <summary>
    /// Chooses deltas as if every row were in the codebook: values are rounded under some <paramref name="multiples"/> of the spread, and of these the codes that explain
    /// most under their own best step win. Leaves their sums.
    /// </summary>
    public void Relax(ReadOnlySpan<float> multiples)
    {
        T zero = T.Broadcast(0);
        for (int g = 0; g < Stride; g += T.Width)
        {
            T best = T.Broadcast(-1);
            foreach (float multiple in multiples)
            {
                T step = T.Max(Block32.At<T>(ref Spread[0], g) * T.Broadcast(multiple), T.Broadcast(Tiny));
                T inverse = T.Broadcast(1) / step;
                T sumA = zero, sumB = zero, plusA = zero, plusB = zero, minusA = zero, minusB = zero;
                for (int r = 0; r < Granules; r++)
                {
                    AddRounded(r, g, inverse, Delta, ref plusA, ref plusB);
                    AddRounded(r, g, inverse, -Delta, ref minusA, ref minusB);
                    if (SharesDelta && r < Granules - 1) continue;
                    T isMinus = T.Greater((plusB * step) - (plusA + plusA), (minusB * step) - (minusA + minusA));
                    T delta = T.Select(isMinus, T.Broadcast(-Delta), T.Broadcast(Delta));
                    for (int d = SharesDelta ? 0 : r; d <= r; d++) T.Store(delta, ref _deltas[(d * Stride) + g]);
                    sumA += T.Select(isMinus, minusA, plusA);
                    sumB += T.Select(isMinus, minusB, plusB);
                    (plusA, plusB, minusA, minusB) = (zero, zero, zero, zero);
                }

                T explained = sumA * sumA / T.Max(sumB, T.Broadcast(Tiny));
                T isBetter = T.Greater(explained, best);
                best = T.Select(isBetter, explained, best);
                Replace(isBetter, sumA, ref SumsA[g]);
                Replace(isBetter, sumB, ref SumsB[g]);
                for (int r = 0; r < Granules; r++) Replace(isBetter, Block32.At<T>(ref _deltas[0], (r * Stride) + g), ref Deltas[(r * Stride) + g]);
            }
        }
    }

    /// <summary>The best rows and deltas under <see cref="Steps"/>.</summary>
    public void FindRowsAndDeltas()
    {
        MemoryMarshal.CreateSpan(ref Deltas[0], Granules * Stride).Fill(-Delta);
        FindRows();
        MemoryMarshal.CreateSpan(ref Losses[0], Granules * Stride).CopyTo(MemoryMarshal.CreateSpan(ref _losses[0], Granules * Stride));
        MemoryMarshal.CreateSpan(ref Rows[0], Granules * Stride).CopyTo(MemoryMarshal.CreateSpan(ref _rows[0], Granules * Stride));
        MemoryMarshal.CreateSpan(ref Deltas[0], Granules * Stride).Fill(Delta);
        FindRows();
        for (int g = 0; g < Stride; g++)
        {
            float difference = 0;
            for (int r = 0; r < Granules; r++)
            {
                difference += Losses[(r * Stride) + g] - _losses[(r * Stride) + g];
                if (SharesDelta && r < Granules - 1) continue;
                for (int d = SharesDelta ? 0 : r; d <= r && difference > 0; d++)
                {
                    int at = (d * Stride) + g;
                    (Deltas[at], Losses[at], Rows[at]) = (-Delta, _losses[at], _rows[at]);
                }

                difference = 0;
            }
        }
    }

    /// <summary>
    /// The best rows under <see cref="Steps"/> and <see cref="Deltas"/>, over the whole codebook: a row's loss is a term of its first half, of 81, and one of its second.
    /// </summary>
    public void FindRows()
    {
        Iq1Pairs<T> pairs = Iq1Pairs<T>.Shared;
        ref ushort starts = ref MemoryMarshal.GetReference(pairs.Starts);
        ref ushort offsets = ref MemoryMarshal.GetReference(pairs.Offsets);
        // Tables start on a line of the cache: the structure lives on the stack and does not move.
        ref float firsts = ref _tables[(int)((64 - ((nuint)Unsafe.AsPointer(ref _tables[0]) & 63)) & 63) / sizeof(float)];
        ref float seconds = ref Unsafe.Add(ref firsts, Halves * Stride);
        for (int g = 0; g < Granules * Stride; g += T.Width)
        {
            T step = Block32.At<T>(ref Steps[0], g % Stride), delta = Block32.At<T>(ref Deltas[0], g);
            T square = step * step, twice = step + step;
            T shift = square * (delta + delta);
            (T plus, T minus) = (square + shift, square - shift);
            T origin = (square * delta * delta * Block32.At<T>(ref _sumsW[0], g)) - (twice * delta * Block32.At<T>(ref _sumsX[0], g));
            ref float column = ref _w[(g / Stride * RowLength * Stride) + (g % Stride)];
            ref float productColumn = ref _wx[(g / Stride * RowLength * Stride) + (g % Stride)];
            AddHalf(ref firsts, origin, in column, in productColumn, plus, minus, twice);
            AddHalf(ref seconds, T.Broadcast(0), in Unsafe.Add(ref column, 4 * Stride), in Unsafe.Add(ref productColumn, 4 * Stride), plus, minus, twice);
            T best = T.Broadcast(float.PositiveInfinity), bestFirst = T.BroadcastInt(0), bestSecond = best;
            nint k = 0;
            for (int i = 0; i < Halves; i++)
            {
                nint end = Unsafe.Add(ref starts, i + 1);
                T even = T.Broadcast(float.PositiveInfinity), odd = even;
                for (; k < end; k += 4)
                {
                    ref ushort four = ref Unsafe.Add(ref offsets, k);
                    even = T.Min(even, T.Load(ref Unsafe.Add(ref seconds, (nint)four)));
                    odd = T.Min(odd, T.Load(ref Unsafe.Add(ref seconds, (nint)Unsafe.Add(ref four, 1))));
                    even = T.Min(even, T.Load(ref Unsafe.Add(ref seconds, (nint)Unsafe.Add(ref four, 2))));
                    odd = T.Min(odd, T.Load(ref Unsafe.Add(ref seconds, (nint)Unsafe.Add(ref four, 3))));
                }

                T second = T.Min(even, odd);
                T loss = second + Block32.At<T>(ref firsts, i * T.Width);
                T isBetter = T.Greater(best, loss);
                best = T.Min(best, loss);
                bestSecond = T.Select(isBetter, second, bestSecond);
                bestFirst = T.Select(isBetter, T.BroadcastInt(i), bestFirst);
            }

            T.Store(best, ref Losses[g]);
            T.StoreUShorts(bestFirst, ref Rows[g]);
            T.Store(bestSecond, ref firsts);
            for (int lane = 0; lane < T.Width; lane++) Rows[g + lane] = FindRow(pairs, Rows[g + lane], ref Unsafe.Add(ref seconds, lane), Unsafe.Add(ref firsts, lane));
        }
    }

    /// <summary>Sets the sums from the rows.</summary>
    public void Sum()
    {
        ReadOnlySpan<float> book = Codebooks.Iq1.Rows;
        for (int g = 0; g < Granules * Stride; g++)
        {
            ReadOnlySpan<float> row = book.Slice(Rows[g] * RowLength, RowLength);
            ref float column = ref _levels[(g / Stride * RowLength * Stride) + (g % Stride)];
            for (int j = 0; j < row.Length; j++) Unsafe.Add(ref column, j * Stride) = row[j];
        }

        for (int g = 0; g < Stride; g += T.Width)
        {
            T sumA = T.Broadcast(0), sumB = sumA;
            for (int i = 0; i < Granules * RowLength; i++)
            {
                int at = (i * Stride) + g;
                T level = Block32.At<T>(ref _levels[0], at) + Block32.At<T>(ref Deltas[0], (i / RowLength * Stride) + g);
                sumA += Block32.At<T>(ref _wx[0], at) * level;
                sumB += Block32.At<T>(ref _w[0], at) * level * level;
            }

            T.Store(sumA, ref SumsA[g]);
            T.Store(sumB, ref SumsB[g]);
        }
    }

    /// <summary>Table of the losses of all 81 half rows, the first element's code changing fastest.</summary>
    private static void AddHalf(ref float table, T origin, ref readonly float weights, ref readonly float products, T plus, T minus, T twice)
    {
        T.Store(origin, ref table);
        int count = 1;
        for (int j = 0; j < 4; j++, count *= 3)
        {
            T w = Block32.At<T>(in weights, j * Stride);
            T cross = twice * Block32.At<T>(in products, j * Stride);
            (T up, T down) = ((plus * w) - cross, (minus * w) + cross);
            for (int i = 0; i < count; i++)
            {
                T loss = Block32.At<T>(ref table, i * T.Width);
                T.Store(loss + down, ref Unsafe.Add(ref table, i * T.Width));
                T.Store(loss, ref Unsafe.Add(ref table, (count + i) * T.Width));
                T.Store(loss + up, ref Unsafe.Add(ref table, ((2 * count) + i) * T.Width));
            }
        }
    }

    /// <summary>The first row of a first half whose second half has this loss.</summary>
    private static ushort FindRow(Iq1Pairs<T> pairs, int first, ref float seconds, float loss)
    {
        (int k, int last) = (pairs.Starts[first], pairs.Starts[first + 1] - 1);
        ref ushort offsets = ref MemoryMarshal.GetReference(pairs.Offsets);
        while (k < last && Unsafe.Add(ref seconds, (nint)Unsafe.Add(ref offsets, k)) != loss) k++;
        return pairs.Rows[k];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void AddRounded(int r, int g, T inverse, float delta, ref T sumA, ref T sumB)
    {
        (T one, T half) = (T.Broadcast(1), T.Broadcast(0.5f));
        for (int i = r * RowLength; i < (r + 1) * RowLength; i++)
        {
            int at = (i * Stride) + g;
            T target = (Block32.At<T>(ref _x[0], at) * inverse) - T.Broadcast(delta);
            T level = T.Broadcast(delta) + (T.Greater(target, half) & one) - (T.Greater(LaneMath.Negate(half), target) & one);
            sumA += Block32.At<T>(ref _wx[0], at) * level;
            sumB += Block32.At<T>(ref _w[0], at) * level * level;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Replace(T mask, T value, ref float destination) => T.Store(T.Select(mask, value, T.Load(ref destination)), ref destination);

    private static float Peak(ref float values, int length)
    {
        T peak = T.Broadcast(0);
        for (int i = 0; i < length; i += T.Width) peak = T.Max(LaneMath.Abs(Block32.At<T>(ref values, i)), peak);
        return T.MaxAcross(peak);
    }
}
