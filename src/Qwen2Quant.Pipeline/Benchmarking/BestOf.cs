using System.Diagnostics;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>The shortest of many runs: what is left when nothing else runs on the machine.</summary>
internal static class BestOf
{
    private const int LeastRuns = 3;

    /// <summary>Seconds of the fastest run within <paramref name="budget"/>, after one that warms up.</summary>
    public static double Seconds(TimeSpan budget, Action action, CancellationToken cancellation)
    {
        action();
        Stopwatch total = Stopwatch.StartNew();
        double best = double.PositiveInfinity;
        for (int run = 0; run < LeastRuns || total.Elapsed < budget; run++)
        {
            cancellation.ThrowIfCancellationRequested();
            long start = Stopwatch.GetTimestamp();
            action();
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }

        return Math.Max(best, 1.0 / Stopwatch.Frequency);
    }
}
