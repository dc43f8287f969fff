using System.Runtime.InteropServices;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Model;

/// <summary>A text that a model continues token by token: its tokens, their keys and values, and the sampler. Not thread-safe.</summary>
public sealed class Generator
{
    // Tokens between two looks at the cancellation; enough rows for the matrix products to run at their speed.
    private const int ReadTokens = 512;

    private readonly Qwen2Model _model;
    private readonly KvCache _cache;
    private readonly Sampler _sampler;
    private readonly float[] _hidden;
    private readonly float[] _logits;
    private readonly List<int> _tokens = [];

    /// <param name="capacity">Tokens of the longest text.</param>
    /// <exception cref="Core.Errors.QuantException">An option is out of range.</exception>
    public Generator(Qwen2Model model, int capacity, SamplingOptions options)
    {
        _model = model;
        _sampler = new Sampler(options, model.Config.VocabSize);
        _cache = model.NewCache(capacity);
        _hidden = new float[checked(Math.Min(ReadTokens, capacity) * model.Config.HiddenSize)];
        _logits = new float[model.Config.VocabSize];
    }

    /// <summary>Tokens of the longest text.</summary>
    public int Capacity => _cache.Capacity;

    /// <summary>The text so far.</summary>
    public IReadOnlyList<int> Tokens => _tokens;

    /// <summary>Yields tokens as they are chosen, until one of <paramref name="stopTokens"/> (not yielded) or <paramref name="maxTokens"/>.</summary>
    /// <param name="prompt">At least one token.</param>
    public static IEnumerable<int> Generate(Qwen2Model model, IReadOnlyList<int> prompt, SamplingOptions options, int maxTokens, IReadOnlySet<int> stopTokens, CancellationToken cancellation = default)
    {
        if (prompt.Count == 0) throw new ArgumentException("there is nothing to continue", nameof(prompt));
        ArgumentOutOfRangeException.ThrowIfNegative(maxTokens);
        return Run(new Generator(model, checked(prompt.Count + maxTokens), options), [.. prompt], maxTokens, stopTokens, cancellation);
    }

    /// <summary>Tokens of a text that <see cref="Read"/> would find in the cache.</summary>
    /// <param name="tokens">At least one; the last is run in any case, for the logits after it.</param>
    public int KeptLength(ReadOnlySpan<int> tokens) =>
        Math.Min(CollectionsMarshal.AsSpan(_tokens)[.._cache.Length].CommonPrefixLength(tokens), tokens.Length - 1);

    /// <summary>Makes a text the one to continue. What it has in common with the text before stays in the cache; the rest is run.</summary>
    /// <param name="tokens">At least one, at most <see cref="Capacity"/>.</param>
    /// <param name="progress">Is told of tokens run.</param>
    /// <returns>Tokens that were run: 1 at least.</returns>
    /// <exception cref="OperationCanceledException">Between two parts of a long text; what was run by then stays.</exception>
    public int Read(ReadOnlySpan<int> tokens, IProgressTask? progress = null, CancellationToken cancellation = default)
    {
        if (tokens.IsEmpty) throw new ArgumentException("there is nothing to continue", nameof(tokens));
        int kept = KeptLength(tokens);
        _cache.Truncate(kept);
        _tokens.Clear();
        _tokens.AddRange(tokens);
        _sampler.Forget();
        foreach (int token in tokens) _sampler.Accept(token);
        RunPending(progress, cancellation);
        return tokens.Length - kept;
    }

    /// <summary>Chooses the token that follows the text and appends it.</summary>
    /// <exception cref="Core.Errors.QuantException">The cache is full, or values are not finite.</exception>
    public int Next(CancellationToken cancellation = default)
    {
        if (_cache.Length < _tokens.Count) RunPending(null, cancellation);
        int token = _sampler.Choose(_logits);
        _tokens.Add(token);
        _sampler.Accept(token);
        return token;
    }

    /// <summary>Runs the tokens that the cache lacks, and computes the logits after the last.</summary>
    private void RunPending(IProgressTask? progress, CancellationToken cancellation)
    {
        int width = _model.Config.HiddenSize;
        int count = 0;
        while (_cache.Length < _tokens.Count)
        {
            cancellation.ThrowIfCancellationRequested();
            count = Math.Min(ReadTokens, _tokens.Count - _cache.Length);
            _model.Forward(CollectionsMarshal.AsSpan(_tokens).Slice(_cache.Length, count), _cache, _hidden);
            progress?.Advance(count);
        }

        _model.Logits(_hidden.AsSpan((count - 1) * width, width), 1, _logits);
    }

    private static IEnumerable<int> Run(Generator generator, int[] prompt, int maxTokens, IReadOnlySet<int> stopTokens, CancellationToken cancellation)
    {
        if (maxTokens == 0) yield break;
        generator.Read(prompt, null, cancellation);
        for (int i = 0; i < maxTokens; i++)
        {
            cancellation.ThrowIfCancellationRequested();
            int token = generator.Next(cancellation);
            if (stopTokens.Contains(token)) yield break;
            yield return token;
        }
    }
}
