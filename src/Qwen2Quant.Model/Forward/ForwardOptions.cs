namespace Qwen2Quant.Model;

/// <summary>How a model runs; none of it but <see cref="Exact"/> changes a bit of the results.</summary>
public sealed record ForwardOptions
{
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>When the blocks of all matrices fit in this many bytes they are read once and kept; else they are read at each use.</summary>
    public long ResidentBytes { get; init; } = 4L << 30;

    /// <summary>Tokens that go through the layers together; activations take memory for so many.</summary>
    public int BatchTokens { get; init; } = 1024;

    /// <summary>Multiplies quantized matrices as floats too, where otherwise activations are rounded to 15 bits for each 32 values.</summary>
    public bool Exact { get; init; }
}
