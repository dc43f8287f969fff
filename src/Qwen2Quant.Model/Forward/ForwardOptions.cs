namespace Qwen2Quant.Model;

/// <summary>How a model runs; none of it changes a bit of the results.</summary>
public sealed record ForwardOptions
{
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>When all matrices as single floats fit in this many bytes they are decoded once and kept; else they are read and decoded slab by slab at each use.</summary>
    public long ResidentBytes { get; init; } = 4L << 30;

    /// <summary>Tokens that go through the layers together; activations take memory for so many.</summary>
    public int BatchTokens { get; init; } = 1024;
}
