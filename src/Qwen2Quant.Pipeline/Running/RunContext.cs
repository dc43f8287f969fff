using Qwen2Quant.Core;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>What every run is given: the disk, limits, where events and progress go, threads, cancellation.</summary>
public sealed record RunContext
{
    public IFileLayer Files { get; init; } = DiskFileLayer.Instance;
    public Limits Limits { get; init; } = Limits.Default;
    public EventLog Events { get; init; } = new();
    public IProgressSink Progress { get; init; } = NoProgress.Instance;

    /// <summary>Workers; the bytes written do not depend on it.</summary>
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>Looked at between slabs.</summary>
    public CancellationToken Cancellation { get; init; }

    public ReadOptions ReadOptions => new() { Limits = Limits, Events = Events };
}
