namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>What can be measured by itself.</summary>
public enum BenchmarkGroup
{
    /// <summary>Names of the kernels in use; measures nothing.</summary>
    Kernels,
    Matmul,
    Memory,
    Disk,
    Codecs,
    Attention,
    Forward,
    Gptq,
}

/// <summary>One measured speed.</summary>
/// <param name="Group">Lower-case name of its <see cref="BenchmarkGroup"/>.</param>
public sealed record BenchmarkFigure(string Group, string Name, double Value, string Unit)
{
    /// <summary>Bytes that a codec reads and writes as a share of what copying moves in the same time (0..1); null for other figures.</summary>
    public double? MemoryShare { get; init; }

    /// <summary>Operations of the machine's matrix product in the time of one value; null for other figures.</summary>
    public double? OperationsPerValue { get; init; }
}

/// <summary>How much is measured; the defaults take about fifteen seconds.</summary>
public sealed record BenchmarkOptions
{
    /// <summary>Folder of the temporary file whose writing is timed.</summary>
    public string Folder { get; init; } = ".";

    /// <summary>Time given to the figure of one codec; others take a few times that.</summary>
    public TimeSpan Budget { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>Bytes of the temporary file.</summary>
    public long DiskBytes { get; init; } = 256 << 20;

    /// <summary>Bytes of each of the two buffers of the memory copy: more than last-level caches hold.</summary>
    public long MemoryBytes { get; init; } = 256 << 20;

    /// <summary>Tokens of the longest text whose attention is measured, of 512, 2048, 8192 and 32768; the last takes ten seconds.</summary>
    public int LongestText { get; init; } = 8192;
}
