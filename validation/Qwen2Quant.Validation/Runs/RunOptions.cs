using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Validation;

/// <summary>How a measurement runs; nothing here changes its result.</summary>
public sealed record RunOptions
{
    /// <summary>Threads that work on rows of logits; the model has its own.</summary>
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>Bytes of logits held at a time for each model; one row at least.</summary>
    public long LogitBytes { get; init; } = 32 << 20;

    /// <summary>What the progress of a perplexity is called.</summary>
    public string Title { get; init; } = "perplexity";

    public IProgressSink Progress { get; init; } = NoProgress.Instance;

    /// <summary>Receives a comparison's divergence at each position, in the order of the text.</summary>
    public ICollection<double>? Divergences { get; init; }

    internal SimdLevel Level { get; init; } = Simd.Level;

    /// <summary>Rows of logits that <see cref="LogitBytes"/> hold, of those that a window scores.</summary>
    internal int RowsPerChunk(int vocabularySize, int scoredPerWindow) =>
        (int)Math.Clamp(Math.Min(LogitBytes, Array.MaxLength) / ((long)vocabularySize * sizeof(float)), 1, scoredPerWindow);
}
