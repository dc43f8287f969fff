namespace Qwen2Quant.Validation;

/// <summary>Keeps the positions of the largest divergence; of equal ones the earlier.</summary>
internal sealed class WorstPositions
{
    public const int Count = 10;
    private const int TopTokens = 5;
    private const int TokensBefore = 32;
    private const int TokensAfter = 8;

    private readonly List<Entry> _entries = [];

    /// <summary>Whether a position of this divergence, later than all before it, would be kept.</summary>
    public bool Accepts(double divergence) => _entries.Count < Count || divergence > _entries[^1].Divergence;

    /// <summary>Keeps a position that <see cref="Accepts"/> accepts.</summary>
    /// <param name="window">Index of the window in the plan.</param>
    public void Add(int window, int position, in RowScore score, ReadOnlySpan<float> baseLogits, ReadOnlySpan<float> candidateLogits)
    {
        double divergence = score.Divergence;
        int place = _entries.Count;
        while (place > 0 && _entries[place - 1].Divergence < divergence) place--;
        Entry entry = new(
            window,
            position,
            divergence,
            Math.Exp(-score.BaseLoss),
            Math.Exp(-score.CandidateLoss),
            Top(baseLogits, score.BaseNormalizer),
            Top(candidateLogits, score.CandidateNormalizer));
        _entries.Insert(place, entry);
        if (_entries.Count > Count) _entries.RemoveAt(Count);
    }

    public IReadOnlyList<WorstPosition> Describe(WindowPlan plan, Func<IReadOnlyList<int>, string> decode)
    {
        return [.. _entries.Select(Describe)];

        WorstPosition Describe(Entry entry)
        {
            ReadOnlySpan<int> tokens = plan.Tokens(entry.Window);
            int target = entry.Position + 1;
            int expected = tokens[target];
            return new WorstPosition(
                plan.WindowNumber(entry.Window),
                entry.Position,
                entry.Divergence,
                Decode(tokens[Math.Max(0, target - TokensBefore)..target]),
                new ExpectedToken(expected, decode([expected]), entry.BaseProbability, entry.CandidateProbability),
                Decode(tokens[(target + 1)..Math.Min(target + 1 + TokensAfter, tokens.Length)]),
                Name(entry.BaseTop),
                Name(entry.CandidateTop));
        }

        string Decode(ReadOnlySpan<int> tokens) => tokens.IsEmpty ? "" : decode(tokens.ToArray());

        TokenProbability[] Name((int Id, double Probability)[] top) =>
            [.. top.Select(token => new TokenProbability(token.Id, decode([token.Id]), token.Probability))];
    }

    /// <summary>The tokens of the largest logits, the lower id first of equal ones.</summary>
    /// <param name="logNormalizer">Logarithm of the sum of all exponentials.</param>
    private static (int Id, double Probability)[] Top(ReadOnlySpan<float> logits, double logNormalizer)
    {
        Span<int> ids = stackalloc int[TopTokens];
        int count = 0;
        for (int id = 0; id < logits.Length; id++)
        {
            if (count == TopTokens && logits[id] <= logits[ids[^1]]) continue;
            int place = count < TopTokens ? count++ : TopTokens - 1;
            for (; place > 0 && logits[ids[place - 1]] < logits[id]; place--) ids[place] = ids[place - 1];
            ids[place] = id;
        }

        (int, double)[] top = new (int, double)[count];
        for (int i = 0; i < count; i++) top[i] = (ids[i], Math.Exp(logits[ids[i]] - logNormalizer));
        return top;
    }

    private sealed record Entry(
        int Window,
        int Position,
        double Divergence,
        double BaseProbability,
        double CandidateProbability,
        (int Id, double Probability)[] BaseTop,
        (int Id, double Probability)[] CandidateTop);
}
