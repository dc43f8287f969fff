using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>What a lease file says of its owner.</summary>
/// <param name="Owner">One run of one worker.</param>
/// <param name="Machine">Host name and start of the system.</param>
/// <param name="Beat">Counts up while it lives.</param>
public sealed record LeaseContent(string Owner, string Machine, int ProcessId, long Beat);

/// <summary>
/// The claims of one worker on tasks: a file each, created exclusively, held open, its beat counted up while the worker lives. A claim of this machine whose file nobody holds is
/// dead at once; one of another machine when its beat has stood still for the length of a lease, by this worker's own clock. A dead claim is taken by renaming its file, which
/// one worker succeeds in. Two workers at one task, which a stalled machine may cause, do the same work and write the same bytes: leases save work and do not guard it.
/// </summary>
internal sealed class Leases : IDisposable
{
    private const int BeatsPerLease = 4;
    private const long LargestLease = 1 << 16;

    /// <summary>A claim without content was cut off between its creation and its first beat.</summary>
    private static readonly TimeSpan EmptyPatience = TimeSpan.FromSeconds(2);

    private readonly IFileLayer _files;
    private readonly string _folder;
    private readonly TimeSpan _length;
    private readonly ConcurrentDictionary<string, IWriteFile> _held = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (string Content, long Since)> _seen = new(StringComparer.Ordinal);
    private readonly Timer _timer;
    private long _beat;

    public Leases(IFileLayer files, string folder, TimeSpan length)
    {
        _files = files;
        _folder = folder;
        _length = length;
        _timer = new Timer(_ => Renew(), null, length / BeatsPerLease, length / BeatsPerLease);
    }

    /// <summary>This worker.</summary>
    public string Owner { get; } = Guid.NewGuid().ToString("N");

    /// <summary>This host since it was started.</summary>
    public static string Machine { get; } = $"{Environment.MachineName} {BootId()}".TrimEnd();

    /// <summary>Claims a task; null while it is another's.</summary>
    /// <exception cref="QuantException">Resource: no file can be created.</exception>
    public IDisposable? Claim(string task)
    {
        string path = PathOf(task);
        for (int attempt = 0; attempt < 2; attempt++)
        {
            try
            {
                IWriteFile file = _files.Create(path, 0);
                _held[task] = file;
                Write(file);
                _seen.Remove(task);
                return new Held(this, task);
            }
            catch (Exception error) when (FileExtensions.IsDiskFailure(error))
            {
                if (!_files.FileExists(path))
                {
                    // Gone between two calls, or the folder takes no files.
                    if (attempt > 0) throw new QuantException(ErrorKind.Resource, $"no lease can be taken: {error.Message}", error) { Path = path };
                    continue;
                }

                if (!TakeDead(task, path)) return null;
            }
        }

        return null;
    }

    /// <summary>Whether somebody is at a task, as far as is known without waiting.</summary>
    public static bool IsHeld(IFileLayer files, string folder, string task)
    {
        string path = Path.Combine(folder, task);
        if (!files.FileExists(path)) return false;
        return Parse(Content(files, path))?.Machine != Machine || files.IsInUse(path);
    }

    public void Dispose()
    {
        _timer.Dispose();
        foreach (string task in _held.Keys) Release(task);
    }

    /// <summary>Takes away the claim of a worker that does not live; true when it is gone.</summary>
    private bool TakeDead(string task, string path)
    {
        string content = Content(_files, path);
        if (!IsDead(task, path, content)) return false;
        string aside = $"{path}.{Owner}.expired";
        try
        {
            _files.Rename(path, aside, overwrite: true);
            if (Content(_files, aside) != content)
            {
                // Somebody was faster, and this is the claim of a living worker.
                if (!_files.FileExists(path)) _files.Rename(aside, path, overwrite: false);
                return false;
            }

            _files.Delete(aside);
            _seen.Remove(task);
            return true;
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            return false;
        }
    }

    private bool IsDead(string task, string path, string content)
    {
        LeaseContent? lease = Parse(content);
        if (lease?.Machine == Machine) return !_files.IsInUse(path);
        if (!_seen.TryGetValue(task, out (string Content, long Since) seen) || seen.Content != content)
        {
            _seen[task] = (content, Stopwatch.GetTimestamp());
            return false;
        }

        return Stopwatch.GetElapsedTime(seen.Since) >= (lease is null ? EmptyPatience : _length);
    }

    private void Renew()
    {
        Interlocked.Increment(ref _beat);
        foreach (IWriteFile file in _held.Values)
        {
            try
            {
                Write(file);
            }
            catch (Exception error) when (FileExtensions.IsDiskFailure(error) || error is ObjectDisposedException)
            {
                // The next beat tries again; at worst another worker does the same work.
            }
        }
    }

    private void Write(IWriteFile file)
    {
        // The same length each time, so that no old end stays.
        byte[] bytes = JsonSerializer.SerializeToUtf8Bytes(new LeaseContent(Owner, Machine, Environment.ProcessId, 1_000_000_000 + Interlocked.Read(ref _beat)), BatchJson.Default.LeaseContent);
        file.Write(0, bytes);
    }

    private void Release(string task)
    {
        if (!_held.TryRemove(task, out IWriteFile? file)) return;
        try
        {
            // Only our own: while we stalled another worker may have taken the task.
            if (Parse(Content(_files, PathOf(task)))?.Owner == Owner) _files.Delete(PathOf(task));
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            // It expires.
        }

        file.Dispose();
    }

    private string PathOf(string task) => Path.Combine(_folder, task);

    private static string Content(IFileLayer files, string path)
    {
        try
        {
            return System.Text.Encoding.UTF8.GetString(files.ReadAllBytes(path, LargestLease));
        }
        catch (QuantException)
        {
            return "";
        }
    }

    private static LeaseContent? Parse(string content)
    {
        try
        {
            return content.Length == 0 ? null : JsonSerializer.Deserialize(content, BatchJson.Default.LeaseContent);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static string BootId()
    {
        const string path = "/proc/sys/kernel/random/boot_id";
        return File.Exists(path) ? File.ReadAllText(path).Trim() : "";
    }

    private sealed class Held(Leases leases, string task) : IDisposable
    {
        public void Dispose() => leases.Release(task);
    }
}
