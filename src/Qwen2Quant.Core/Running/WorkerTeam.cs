using System.Runtime.ExceptionServices;

namespace Qwen2Quant.Core.Running;

/// <summary>
/// Runs indexed tasks on at most <see cref="ThreadCount"/> threads, the caller's among them. Which thread runs which task is open;
/// callers make results independent of it by giving every task its own outputs. Thread-safe.
/// </summary>
public sealed class WorkerTeam
{
    /// <param name="threadCount">At least 1.</param>
    public WorkerTeam(int threadCount)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(threadCount, 1);
        ThreadCount = threadCount;
    }

    public int ThreadCount { get; }

    /// <summary>Calls <paramref name="body"/> with 0 to <paramref name="taskCount"/> - 1 and returns when all have ended; the first error is thrown here and skips tasks not yet begun.</summary>
    public void Run(int taskCount, Action<int> body)
    {
        if (taskCount <= 1 || ThreadCount == 1)
        {
            for (int task = 0; task < taskCount; task++) body(task);
            return;
        }

        Job job = new(taskCount, body);
        int helperCount = Math.Min(ThreadCount, taskCount) - 1;
        for (int helper = 0; helper < helperCount; helper++) ThreadPool.UnsafeQueueUserWorkItem(job, preferLocal: false);
        job.Execute();
        job.Wait();
    }

    // A helper that starts after the last task was taken finds none and leaves: nobody ever waits for the pool itself.
    private sealed class Job(int taskCount, Action<int> body) : IThreadPoolWorkItem
    {
        private readonly int _taskCount = taskCount;
        private readonly ManualResetEventSlim _done = new(false);
        private int _last = -1;
        private int _pending = taskCount;
        private Exception? _error;

        public void Execute()
        {
            int task;
            while ((task = Interlocked.Increment(ref _last)) < _taskCount)
            {
                try
                {
                    if (Volatile.Read(ref _error) is null) body(task);
                }
                catch (Exception error)
                {
                    Interlocked.CompareExchange(ref _error, error, null);
                }

                if (Interlocked.Decrement(ref _pending) == 0) _done.Set();
            }
        }

        public void Wait()
        {
            _done.Wait();
            if (_error is not null) ExceptionDispatchInfo.Throw(_error);
        }
    }
}
