namespace Qwen2Quant.Core;

/// <summary>Ceilings on what a file may ask for before it is refused. One object, documented defaults, all raisable.</summary>
public sealed record Limits
{
    /// <summary>The limits of the safetensors reference and of ggml's reader, or stricter.</summary>
    public static Limits Default { get; } = new();

    /// <summary>Bytes of a safetensors header; the format's own ceiling.</summary>
    public long HeaderBytes { get; init; } = 100_000_000;

    public long TensorCount { get; init; } = 1_000_000;

    /// <summary>Bytes of a tensor name in safetensors.</summary>
    public int NameBytes { get; init; } = 1 << 20;

    /// <summary>Bytes of a tensor name in GGUF; ggml's buffer is 64 with the terminator.</summary>
    public int GgufNameBytes { get; init; } = 63;

    public long StringBytes { get; init; } = 16 << 20;
    public long ArrayElements { get; init; } = 64 << 20;

    /// <summary>Depth of arrays inside arrays in GGUF metadata.</summary>
    public int Nesting { get; init; } = 8;

    public int GgufDimensions { get; init; } = 4;
    public int SafetensorsDimensions { get; init; } = 8;
    public int JsonDepth { get; init; } = 32;

    /// <summary>Bytes of config.json and its kind.</summary>
    public long JsonFileBytes { get; init; } = 64 << 20;
}
