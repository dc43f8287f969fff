namespace Qwen2Quant.Model;

/// <summary>Suggests the name that a user may have meant: the smallest edit distance (Levenshtein, 1966), at a bounded cost.</summary>
internal sealed class NearestName(IReadOnlyList<string> candidates)
{
    private const int LongestName = 128;
    private const int CellBudget = 50_000_000;

    private int _cellsLeft = CellBudget;

    /// <summary>The nearest candidate within a quarter of the name's length, or null; null too when the budget is spent.</summary>
    public string? Find(string name)
    {
        if (name.Length > LongestName) return null;
        int limit = Math.Max(name.Length / 4, 1);
        string? best = null;
        foreach (string candidate in candidates)
        {
            if (candidate.Length > LongestName || Math.Abs(candidate.Length - name.Length) > limit) continue;
            if ((_cellsLeft -= candidate.Length * name.Length) < 0) break;
            int distance = Distance(name, candidate);
            if (distance > limit || (distance == limit && best is not null)) continue;
            best = candidate;
            limit = distance;
        }

        return best;
    }

    public static int Distance(string a, string b)
    {
        Span<int> previous = stackalloc int[LongestName + 1];
        Span<int> current = stackalloc int[LongestName + 1];
        for (int j = 0; j <= b.Length; j++) previous[j] = j;
        for (int i = 1; i <= a.Length; i++)
        {
            current[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
                current[j] = Math.Min(replaced, Math.Min(previous[j], current[j - 1]) + 1);
            }

            Span<int> swap = previous;
            previous = current;
            current = swap;
        }

        return previous[b.Length];
    }
}
