using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>How a worker goes about a batch.</summary>
/// <param name="Index">Only this item and what it needs; null for all.</param>
/// <param name="Slots">Tasks at once.</param>
/// <param name="Retry">Tasks that failed are tried again.</param>
/// <param name="Lease">After how long without a sign of life a task of another machine's worker is taken over.</param>
public sealed record BatchWorkOptions(int? Index = null, int Slots = 1, bool Retry = false, TimeSpan? Lease = null);

/// <summary>Takes tasks that nobody is at, one or several at a time, until none is left. Any number of workers may be at one batch.</summary>
/// <param name="log">Takes one line about each task.</param>
public sealed class BatchWorker(BatchManifest manifest, string folderPath, BatchWorkOptions options, RunContext context, Action<string> log)
{
    private static readonly TimeSpan ShortestWait = TimeSpan.FromMilliseconds(100), LongestWait = TimeSpan.FromSeconds(2);

    private readonly BatchFolder _folder = new(context.Files, folderPath);
    private readonly string _worker = $"{Environment.MachineName} {Environment.ProcessId}";
    private readonly Dictionary<string, Slot> _running = new(StringComparer.Ordinal);
    private readonly HashSet<string> _checked = new(StringComparer.Ordinal);
    private readonly HashSet<string> _retried = new(StringComparer.Ordinal);
    private TimeSpan _wait = ShortestWait;

    private BatchManifest Manifest => manifest;

    /// <summary>Works until everything in scope is done, or cannot be.</summary>
    /// <exception cref="QuantException">Usage: there is no such item. Resource: the disk or the memory does not suffice; nothing is lost.</exception>
    /// <exception cref="OperationCanceledException">Somebody stopped it; the next worker goes on.</exception>
    public BatchStatus Run()
    {
        if (options.Index is { } index && (index < 0 || index >= manifest.Items.Count))
        {
            throw new QuantException(ErrorKind.Usage, "there is no item of that index") { Found = index.ToString(CultureInfo.InvariantCulture), Expected = $"0 to {manifest.Items.Count - 1}" };
        }

        _folder.Create();
        HashSet<string> scope = [.. (options.Index is { } only ? [manifest.Items[only]] : manifest.Items).SelectMany(item => item.Tasks)];
        BatchTask[] tasks = [.. manifest.Tasks.Where(task => scope.Contains(task.Id))];
        using Leases leases = new(context.Files, _folder.Leases, options.Lease ?? TimeSpan.FromSeconds(60));
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(context.Cancellation);
        try
        {
            while (Step(tasks, leases, stop.Token))
            {
            }
        }
        finally
        {
            stop.Cancel();
            foreach (Slot slot in _running.Values) slot.Wait();
        }

        context.Cancellation.ThrowIfCancellationRequested();
        return BatchStatus.Of(manifest, folderPath, context.Files);
    }

    /// <summary>Looks once at all tasks; false when there is nothing more to do.</summary>
    private bool Step(BatchTask[] tasks, Leases leases, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        foreach (Slot ended in _running.Values.Where(slot => slot.IsEnded).ToArray())
        {
            _running.Remove(ended.Task.Id);
            ended.Finish();
        }

        HashSet<string> done = Done(), failed = Failed();
        BatchTask[] open = [.. tasks.Where(task => !done.Contains(task.Id) && !failed.Contains(task.Id) && !IsObsolete(task, done))];
        BatchTask[] possible = [.. open.Where(task => !DependsOn(task, failed))];
        if (possible.Length == 0 && _running.Count == 0) return false;
        bool began = false;
        foreach (BatchTask task in possible.Where(task => !_running.ContainsKey(task.Id) && task.Needs.All(done.Contains)))
        {
            if (_running.Count >= options.Slots || !Fits(task)) break;
            if (leases.Claim(task.Id) is not { } lease) continue;
            // Another worker may have ended it between the look and the claim.
            if (_folder.Receipt(task.Id) is not null)
            {
                lease.Dispose();
                continue;
            }

            _running.Add(task.Id, new Slot(this, task, lease, cancellation));
            began = true;
        }

        if (began) _wait = ShortestWait;
        else Wait(cancellation);
        return true;
    }

    /// <summary>Waits for a task of its own to end, or for what others are at; the longer the less happens.</summary>
    private void Wait(CancellationToken cancellation)
    {
        if (_running.Count == 0 ? cancellation.WaitHandle.WaitOne(_wait) : Task.WaitAny([.. _running.Values.Select(slot => slot.Work)], _wait) >= 0) return;
        _wait = _wait * 2 > LongestWait ? LongestWait : _wait * 2;
    }

    /// <summary>Tasks with a receipt whose files are there; a receipt without them is forgotten.</summary>
    private HashSet<string> Done()
    {
        HashSet<string> done = [.. _folder.TasksWithReceipt()];
        foreach (string id in done.Where(id => !_checked.Contains(id)).ToArray())
        {
            if (_folder.Receipt(id) is { } receipt && _folder.HasFiles(receipt))
            {
                _checked.Add(id);
                continue;
            }

            done.Remove(id);
            _folder.Forget(id);
        }

        return done;
    }

    private HashSet<string> Failed()
    {
        HashSet<string> failed = [.. _folder.TasksWithFailure()];
        if (!options.Retry) return failed;
        foreach (string id in failed.Where(_retried.Add).ToArray())
        {
            _folder.Forget(id);
            failed.Remove(id);
        }

        return failed;
    }

    /// <summary>True for what only served tasks that are done: the parts of sums, what an item's last task rests on.</summary>
    private bool IsObsolete(BatchTask task, HashSet<string> done) => task.Item is { } index
        ? done.Contains(manifest.Items[index].Tasks[^1])
        : manifest.Items.Where(item => item.Statistics == task.Statistics).All(item => done.Contains(item.Tasks[^1])) || manifest.Tasks.Any(other => other.Statistics == task.Statistics && other.Stage == BatchStage.Sum && other.Id != task.Id && done.Contains(other.Id));

    private bool DependsOn(BatchTask task, HashSet<string> failed) => task.Needs.Any(need => failed.Contains(need) || DependsOn(manifest.Task(need), failed));

    /// <summary>Whether there is memory left for a task; one that needs more than there is runs alone, with what there is.</summary>
    private bool Fits(BatchTask task) => _running.Count == 0 || _running.Values.Sum(slot => slot.Task.MemoryBytes) + task.MemoryBytes <= context.MemoryBytes;

    /// <summary>A task at work, on a thread of its own.</summary>
    private sealed class Slot
    {
        private readonly BatchWorker _owner;
        private readonly IDisposable _lease;

        public Slot(BatchWorker owner, BatchTask task, IDisposable lease, CancellationToken cancellation)
        {
            _owner = owner;
            _lease = lease;
            Task = task;
            RunContext own = owner.ContextFor(task, cancellation);
            Work = System.Threading.Tasks.Task.Factory.StartNew(() => new BatchTaskRunner(owner.Manifest, owner._folder, owner._worker).Run(task, own), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        }

        public BatchTask Task { get; }

        public Task<BatchReceipt> Work { get; }

        public bool IsEnded => Work.IsCompleted;

        /// <summary>Lets it end, whatever becomes of it.</summary>
        public void Wait()
        {
            ((IAsyncResult)Work).AsyncWaitHandle.WaitOne();
            _lease.Dispose();
        }

        /// <summary>Says what became of it; throws what concerns the whole worker.</summary>
        public void Finish()
        {
            using IDisposable released = _lease;
            if (Work.Status == TaskStatus.RanToCompletion)
            {
                _owner.Say(Task, Work.Result.IsRejected ? $"rejected: {string.Join("; ", Work.Result.Broken!)}" : string.Create(CultureInfo.InvariantCulture, $"done in {Work.Result.Seconds:0.0} s"));
                return;
            }

            Exception error = Work.Exception!.InnerException!;
            // Another worker may have been at the same task, and have moved its files on; or it still holds them, and this one looks again later.
            if (error is QuantException { Kind: ErrorKind.Busy } || _owner._folder.Receipt(Task.Id) is not null) return;
            if (error is OperationCanceledException or QuantException { Kind: ErrorKind.Resource }) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(error);
            _owner._folder.Write(new BatchFailure(Task.Id, error is QuantException known ? known.Kind.ToString() : "internal error", error.Message, _owner._worker));
            _owner.Say(Task, $"failed: {error.Message}");
        }
    }

    private RunContext ContextFor(BatchTask task, CancellationToken cancellation) => context with
    {
        Events = new(),
        Threads = Math.Max(1, context.Threads / options.Slots),
        MemoryBytes = options.Slots == 1 ? context.MemoryBytes : Math.Min(context.MemoryBytes, task.MemoryBytes),
        Progress = options.Slots == 1 ? context.Progress : Core.Running.NoProgress.Instance,
        Cancellation = cancellation,
    };

    private void Say(BatchTask task, string what)
    {
        string name = task.Item is { } index ? manifest.Items[index].Name : manifest.StatisticsOf(task.Statistics!).Id;
        string part = task.Parts > 1 ? $" {task.Part + 1}/{task.Parts}" : "";
        log($"{task.Stage.ToString().ToLowerInvariant()}{part} {TextEscape.Escape(name)}: {TextEscape.Escape(what)}");
    }
}
