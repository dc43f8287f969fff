namespace Qwen2Quant.Model;

/// <summary>Continues a text token by token with a cache.</summary>
public static class Generator
{
    /// <summary>Yields tokens as they are chosen, until one of <paramref name="stopTokens"/> (not yielded) or <paramref name="maxTokens"/>.</summary>
    /// <param name="prompt">At least one token.</param>
    public static IEnumerable<int> Generate(Qwen2Model model, IReadOnlyList<int> prompt, SamplingOptions options, int maxTokens, IReadOnlySet<int> stopTokens, CancellationToken cancellation = default)
    {
        if (prompt.Count == 0) throw new ArgumentException("there is nothing to continue", nameof(prompt));
        ArgumentOutOfRangeException.ThrowIfNegative(maxTokens);
        return Run(model, [.. prompt], options, maxTokens, stopTokens, cancellation);
    }

    private static IEnumerable<int> Run(Qwen2Model model, int[] next, SamplingOptions options, int maxTokens, IReadOnlySet<int> stopTokens, CancellationToken cancellation)
    {
        int width = model.Config.HiddenSize;
        KvCache cache = model.NewCache(checked(next.Length + maxTokens));
        SplitMix64 random = new(options.Seed);
        HashSet<int> occurred = [.. next];
        float[] logits = new float[model.Config.VocabSize];
        for (int i = 0; i < maxTokens; i++)
        {
            cancellation.ThrowIfCancellationRequested();
            float[] hidden = new float[checked(next.Length * width)];
            model.Forward(next, cache, hidden);
            model.Logits(hidden.AsSpan(hidden.Length - width), 1, logits);
            int token = Sampler.Choose(logits, occurred, options, random.NextDouble());
            if (stopTokens.Contains(token)) yield break;
            yield return token;
            occurred.Add(token);
            next = [token];
        }
    }
}
