using System.Collections.Concurrent;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>Runs numbered units on several workers; buffers go from unit to unit, so that there are no more of them than workers.</summary>
internal static class Workers
{
    /// <summary>Calls <paramref name="work"/> for every unit from 0 on. A failure or a cancellation stops those that have not begun.</summary>
    public static void Run<TBuffers>(int threads, int unitCount, Func<TBuffers> createBuffers, Action<int, TBuffers> work, CancellationToken cancellation)
    {
        ConcurrentBag<TBuffers> idle = [];
        new WorkerTeam(threads).Run(unitCount, unit =>
        {
            cancellation.ThrowIfCancellationRequested();
            if (!idle.TryTake(out TBuffers? buffers)) buffers = createBuffers();
            work(unit, buffers);
            idle.Add(buffers);
        });
    }
}
