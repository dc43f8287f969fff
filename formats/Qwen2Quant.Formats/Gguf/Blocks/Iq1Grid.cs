using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// The codebook of the IQ1 types as their encoders need it. Codes 0, 1, 2 stand for -1, 0, +1; a row's key holds them two bits each, the first in the lowest.
/// Rows are sorted by key.
/// </summary>
internal sealed class Iq1Grid
{
    public const int RowCount = 2048;
    public const int RowLength = 8;

    /// <summary>Keys end below this one.</summary>
    private const int KeyCount = 0xaaab;

    /// <summary>Distances of a key from rows at which ggml looks for a neighbour: the three smallest that occur.</summary>
    private const int Shells = 3;

    private static Iq1Grid? _shared;

    private readonly short[] _indices = new short[KeyCount];
    private readonly byte[] _codes = new byte[RowCount * RowLength];
    private readonly ushort[]?[] _neighbours = new ushort[KeyCount][];
    private readonly byte[] _changed = new byte[RowCount];
    private readonly int _zeroRow;

    private Iq1Grid()
    {
        Array.Fill(_indices, (short)-1);
        for (int i = 0; i < _codes.Length; i++) _codes[i] = (byte)(Codebooks.Iq1.Rows[i] + 1);
        _changed[0] = RowLength - 1;
        for (int row = 0; row < RowCount; row++)
        {
            _indices[Key(Row(row))] = (short)row;
            for (int j = 0; row > 0 && j < RowLength; j++)
            {
                if (Row(row)[j] != Row(row - 1)[j]) _changed[row] = (byte)j;
            }
        }

        _zeroRow = IndexOf(0x5555);
    }

    /// <summary>Made when first used. Two threads may both make one; either serves.</summary>
    public static Iq1Grid Shared => _shared ??= new();

    /// <summary>The eight codes of a row.</summary>
    public ReadOnlySpan<byte> Row(int index) => _codes.AsSpan(index * RowLength, RowLength);

    public static int Key(ReadOnlySpan<byte> codes)
    {
        int key = 0;
        for (int j = 0; j < RowLength; j++) key |= codes[j] << (2 * j);
        return key;
    }

    /// <summary>The row of a key, -1 when there is none.</summary>
    public int IndexOf(int key) => _indices[key];

    /// <summary>Rows in the three nearest shells around a key without a row, by distance and then by index, as ggml orders them. Found when first asked for.</summary>
    public ReadOnlySpan<ushort> Neighbours(int key) => _neighbours[key] ??= FindNeighbours(key);

    /// <summary>
    /// Codes of the row nearest to <paramref name="x"/> under a metric as <see cref="ICodebookGrid.Round"/> takes it. Sorted rows are a tree with the last element at its
    /// root; a factor of the metric splits the loss into terms of ever more elements from the last on, and branches that cannot win are left out.
    /// </summary>
    public void Nearest(ReadOnlySpan<float> x, ReadOnlySpan<float> metric, Levels levels, Span<byte> codes)
    {
        Span<double> factor = stackalloc double[RowLength * RowLength];
        Factor(metric, factor);
        Span<double> errors = stackalloc double[3 * RowLength];
        for (int i = 0; i < errors.Length; i++) errors[i] = x[i / 3] - (double)levels.Value(i % 3);
        Span<double> sums = stackalloc double[RowLength + 1];
        int best = _zeroRow;
        double least = Descend(best, RowLength - 1, factor, errors, sums, double.PositiveInfinity, out _);
        int key = Greedy(factor, errors);
        ReadOnlySpan<ushort> first = IndexOf(key) >= 0 ? [(ushort)IndexOf(key)] : Neighbours(key);
        foreach (ushort candidate in first)
        {
            double loss = Descend(candidate, RowLength - 1, factor, errors, sums, least, out int depth);
            if (depth == 0 && loss < least) (least, best) = (loss, candidate);
        }

        int row = 0;
        while (row < RowCount)
        {
            double loss = Descend(row, _changed[row], factor, errors, sums, least, out int depth);
            if (depth == 0 && loss < least) (least, best) = (loss, row);
            // Past all rows that share the elements down to where the loss grew too large.
            int next = _changed.AsSpan(row + 1).IndexOfAnyInRange((byte)depth, (byte)(RowLength - 1));
            if (next < 0) break;
            row += 1 + next;
        }

        Row(best).CopyTo(codes);
    }

    /// <summary>The key whose codes, from the last on, each make their own term smallest. It need not have a row.</summary>
    private static int Greedy(ReadOnlySpan<double> factor, ReadOnlySpan<double> errors)
    {
        Span<double> chosen = stackalloc double[RowLength];
        int key = 0;
        for (int k = RowLength - 1; k >= 0; k--)
        {
            double later = 0;
            for (int i = k + 1; i < RowLength; i++) later += factor[(i * RowLength) + k] * chosen[i];
            int best = 1;
            for (int code = 0; code < 3; code += 2)
            {
                double pivot = factor[(k * RowLength) + k];
                if (Math.Abs(later + (pivot * errors[(3 * k) + code])) < Math.Abs(later + (pivot * errors[(3 * k) + best]))) best = code;
            }

            chosen[k] = errors[(3 * k) + best];
            key |= best << (2 * k);
        }

        return key;
    }

    /// <summary>Adds the terms of elements <paramref name="from"/> down to 0 of one row, as long as the sum stays below the limit; <paramref name="depth"/> is the last one added.</summary>
    private double Descend(int row, int from, ReadOnlySpan<double> factor, ReadOnlySpan<double> errors, Span<double> sums, double limit, out int depth)
    {
        ReadOnlySpan<byte> codes = Row(row);
        for (depth = from; ; depth--)
        {
            double term = 0;
            for (int i = depth; i < RowLength; i++) term += factor[(i * RowLength) + depth] * errors[(3 * i) + codes[i]];
            sums[depth] = sums[depth + 1] + (term * term);
            if (depth == 0 || sums[depth] >= limit) return sums[depth];
        }
    }

    /// <summary>The lower triangular L with LL' = M.</summary>
    private static void Factor(ReadOnlySpan<float> metric, Span<double> factor)
    {
        factor.Clear();
        for (int k = 0; k < RowLength; k++)
        {
            for (int i = k; i < RowLength; i++)
            {
                double sum = metric.Length == RowLength * RowLength ? metric[(i * RowLength) + k] : i != k ? 0 : metric.IsEmpty ? 1 : metric[k];
                for (int j = 0; j < k; j++) sum -= factor[(i * RowLength) + j] * factor[(k * RowLength) + j];
                double pivot = factor[(k * RowLength) + k];
                factor[(i * RowLength) + k] = i == k ? Math.Sqrt(Math.Max(0, sum)) : pivot > 0 ? sum / pivot : 0;
            }
        }
    }

    private ushort[] FindNeighbours(int key)
    {
        // Squared distances are at most 8 x 2^2.
        List<ushort>[] shells = new List<ushort>[33];
        for (int row = 0; row < RowCount; row++)
        {
            int distance = 0;
            for (int j = 0; j < RowLength; j++)
            {
                int difference = Row(row)[j] - ((key >> (2 * j)) & 3);
                distance += difference * difference;
            }

            (shells[distance] ??= []).Add((ushort)row);
        }

        return [.. shells.Where(shell => shell is not null).Take(Shells).SelectMany(shell => shell)];
    }
}
