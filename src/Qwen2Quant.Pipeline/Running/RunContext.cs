using Qwen2Quant.Core;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;

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

    /// <summary>Bytes for the whole process where models run; they do not change what is computed.</summary>
    public long MemoryBytes { get; init; } = MemoryPlan.DefaultBytes;

    /// <summary>As <see cref="ForwardOptions.Exact"/>.</summary>
    public bool Exact { get; init; }

    /// <summary>Folder of files that do not outlive the run: TMPDIR; without it /var/tmp where there is one, as /tmp often lies in memory; else the system's.</summary>
    public string TemporaryFolder { get; init; } =
        Environment.GetEnvironmentVariable("TMPDIR") is { Length: > 0 } named ? named : Directory.Exists("/var/tmp") ? "/var/tmp" : Path.GetTempPath();

    /// <summary>Looked at between slabs.</summary>
    public CancellationToken Cancellation { get; init; }

    public ReadOptions ReadOptions => new() { Limits = Limits, Events = Events };
}
