using System.Globalization;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>Sums of squared inputs of one tensor.</summary>
/// <param name="Name">The tensor's name.</param>
/// <param name="Sums">[experts, row length] sums over rows of the square of each input channel; one expert for plain matrices.</param>
/// <param name="Counts">Rows summed: for each expert, or one number that holds for all.</param>
public sealed record ImatrixEntry(string Name, float[] Sums, long[] Counts)
{
    /// <summary>Sums under one count.</summary>
    public int Width => Sums.Length / Counts.Length;

    /// <summary>
    /// Mean squares, the weights that llama-quantize gives its encoders: single precision sums divided by counts, and 1 for all of an expert
    /// without rows.
    /// </summary>
    public float[] MeanSquares()
    {
        float[] means = new float[Sums.Length];
        for (int slice = 0; slice < Counts.Length; slice++)
        {
            Span<float> target = means.AsSpan(slice * Width, Width);
            if (Counts[slice] == 0) target.Fill(1);
            else TensorPrimitives.Divide(Sums.AsSpan(slice * Width, Width), Counts[slice], target);
        }

        return means;
    }

    /// <summary>This entry and more rows of the same tensor.</summary>
    internal ImatrixEntry Plus(ImatrixEntry other)
    {
        float[] sums = new float[Sums.Length];
        TensorPrimitives.Add(Sums, other.Sums, sums);
        int slices = Math.Max(Counts.Length, other.Counts.Length);
        return new ImatrixEntry(Name, sums, [.. Enumerable.Range(0, slices).Select(slice => Counts[slice % Counts.Length] + other.Counts[slice % other.Counts.Length])]);
    }
}

/// <summary>An importance matrix: sums of squared inputs by tensor, and what they were made of.</summary>
/// <param name="Entries">In ordinal order of their names.</param>
/// <param name="Datasets">Names of the texts.</param>
/// <param name="ChunkCount">Windows of text; 0 when unknown.</param>
/// <param name="ChunkSize">Tokens of one window; 0 when unknown.</param>
public sealed record Imatrix(IReadOnlyList<ImatrixEntry> Entries, IReadOnlyList<string> Datasets, int ChunkCount, int ChunkSize)
{
    /// <summary>Window length that a file is taken to have which does not say: the default of llama-imatrix.</summary>
    public const int DefaultChunkSize = 512;

    /// <summary>The mean squares of every entry by name, as llama-quantize's library takes them.</summary>
    public Dictionary<string, float[]> MeanSquares() => Entries.ToDictionary(entry => entry.Name, entry => entry.MeanSquares());

    /// <summary>Adds statistics of one model; a count that holds for all experts counts for each.</summary>
    /// <param name="parts">At least one, with the path that errors show.</param>
    /// <exception cref="QuantException">NU-91: an entry has different lengths, or sums leave the range of numbers.</exception>
    public static Imatrix Merge(IReadOnlyList<(Imatrix Imatrix, string Path)> parts)
    {
        if (parts.Count == 1) return parts[0].Imatrix;
        SortedDictionary<string, ImatrixEntry> merged = new(StringComparer.Ordinal);
        foreach ((Imatrix part, string path) in parts)
        {
            foreach (ImatrixEntry entry in part.Entries)
            {
                if (!merged.TryGetValue(entry.Name, out ImatrixEntry? before))
                {
                    merged.Add(entry.Name, entry);
                    continue;
                }

                bool sameSlices = before.Counts.Length == entry.Counts.Length || before.Counts.Length == 1 || entry.Counts.Length == 1;
                if (before.Sums.Length != entry.Sums.Length || !sameSlices)
                {
                    throw GgufRefusal.Of(
                        StatisticsRules.Usable, path, "these statistics are of another model than those before them", entry.Name,
                        found: Describe(entry), expected: Describe(before));
                }

                merged[entry.Name] = before.Plus(entry);
            }
        }

        Imatrix whole = new(
            [.. merged.Values],
            [.. parts.SelectMany(part => part.Imatrix.Datasets).Distinct(StringComparer.Ordinal)],
            (int)Math.Min(int.MaxValue, parts.Sum(part => (long)part.Imatrix.ChunkCount)),
            parts.Select(part => part.Imatrix.ChunkSize).FirstOrDefault(size => size > 0));
        whole.Check(parts[^1].Path);
        return whole;
    }

    /// <summary>Refuses sums that are not finite or negative, counts that are, and entries without a counted row.</summary>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">NU-91.</exception>
    public void Check(string path)
    {
        foreach (ImatrixEntry entry in Entries)
        {
            int column = entry.Sums.AsSpan().IndexOfAnyExceptInRange(0f, float.MaxValue);
            if (column >= 0)
            {
                throw GgufRefusal.Of(
                    StatisticsRules.Usable, path, "a sum of squares is impossible", entry.Name,
                    found: string.Create(CultureInfo.InvariantCulture, $"{entry.Sums[column]} in column {column}"), expected: "a finite number, not negative");
            }

            if (entry.Counts.Any(count => count < 0) || entry.Counts.All(count => count == 0))
            {
                throw GgufRefusal.Of(
                    StatisticsRules.Usable, path, "an entry counts no rows", entry.Name,
                    found: string.Create(CultureInfo.InvariantCulture, $"{entry.Counts.Min()}"), expected: "1 or more", remedy: "Collect the statistics again, on more text.");
            }
        }
    }

    private static string Describe(ImatrixEntry entry) => string.Create(CultureInfo.InvariantCulture, $"{entry.Counts.Length} x {entry.Width} values");
}
