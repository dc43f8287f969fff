using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>Runs numbered units on several workers, each with its own buffers.</summary>
internal static class Workers
{
    /// <summary>
    /// Calls <paramref name="work"/> for every unit from 0 on. The first failure stops the others; of several, that of the lowest
    /// unit is thrown, so that the message does not depend on timing.
    /// </summary>
    public static void Run<TState>(int threads, int unitCount, CancellationToken cancellation, Func<TState> createState, Action<int, TState> work)
    {
        int next = -1;
        int failedUnit = int.MaxValue;
        Exception? failure = null;
        Lock failureLock = new();

        void Loop()
        {
            TState state = createState();
            while (!cancellation.IsCancellationRequested && Volatile.Read(ref failure) is null)
            {
                int unit = Interlocked.Increment(ref next);
                if (unit >= unitCount) return;
                try
                {
                    work(unit, state);
                }
                catch (Exception error)
                {
                    lock (failureLock)
                    {
                        if (unit >= failedUnit) return;
                        failedUnit = unit;
                        Volatile.Write(ref failure, error);
                    }
                }
            }
        }

        Thread[] helpers = [.. Enumerable.Range(1, Math.Max(0, Math.Min(threads, unitCount) - 1)).Select(_ => new Thread(Loop) { IsBackground = true })];
        foreach (Thread helper in helpers) helper.Start();
        Loop();
        foreach (Thread helper in helpers) helper.Join();
        if (failure is QuantException or OperationCanceledException) throw failure;
        if (failure is not null) throw new InvalidOperationException(failure.Message, failure);
        cancellation.ThrowIfCancellationRequested();
    }
}
