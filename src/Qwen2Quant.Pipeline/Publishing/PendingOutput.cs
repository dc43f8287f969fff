using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Publishing;

/// <summary>What an output consists of.</summary>
public enum OutputKind
{
    File,
    Folder,

    /// <summary>Files side by side in a folder that is not theirs: the parts of a split GGUF.</summary>
    Parts,
}

/// <summary>
/// An output that does not have its name yet. Everything is written under a temporary name beside the target, flushed,
/// verified through the public reader, and renamed; a run that ends otherwise leaves nothing under the final name
/// (write, flush file, rename, flush folder: the sequence that survives a power cut, Pillai et al., OSDI 2014).
/// </summary>
public sealed class PendingOutput : IDisposable
{
    private const string Suffix = ".partial";

    private readonly IFileLayer _files;
    private readonly bool _isShared;
    private readonly List<IWriteFile> _open = [];
    private readonly List<string> _moved = [];
    private bool _published;

    private PendingOutput(IFileLayer files, string target, OutputKind kind, bool isShared = false)
    {
        _files = files;
        _isShared = isShared;
        Target = Path.TrimEndingDirectorySeparator(Path.GetFullPath(target));
        Parent = Path.GetDirectoryName(Target)!;
        Kind = kind;
        TemporaryPath = TemporaryPathOf(Target);
    }

    /// <summary>The final path, absolute; that of the first part where there are several.</summary>
    public string Target { get; }

    public OutputKind Kind { get; }

    /// <summary>Where the output is until it is published: a file, or a folder that holds its files.</summary>
    public string TemporaryPath { get; }

    /// <summary>Whether the unfinished output stays when this is closed before it is published: another run may go on with it.</summary>
    public bool Keeps { get; set; }

    private string Parent { get; }

    /// <summary>As <see cref="TemporaryPath"/> of an output of that name.</summary>
    public static string TemporaryPathOf(string target) => HiddenBeside(target, Suffix);

    /// <summary>The hidden name beside a path that ends in a suffix.</summary>
    internal static string HiddenBeside(string target, string suffix)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(target));
        return Path.Combine(Path.GetDirectoryName(full)!, "." + Path.GetFileName(full) + suffix);
    }

    /// <summary>
    /// Checks at plan time that the target can be published: its folder exists, it is free or may be replaced, it is none of the
    /// inputs nor inside or around one, and the disk has room.
    /// </summary>
    public static void CheckTarget(IFileLayer files, string target, OutputKind kind, bool force, IReadOnlyCollection<string> inputPaths, long plannedBytes)
    {
        PendingOutput output = new(files, target, kind);
        bool isFolder = kind == OutputKind.Folder;
        if (!files.DirectoryExists(output.Parent))
        {
            throw Refused("the folder of the output does not exist", output.Parent, "Create it first.");
        }

        string resolvedTarget = files.ResolveLink(output.Target) ?? output.Target;
        foreach (string input in inputPaths)
        {
            string resolvedInput = files.ResolveLink(Path.GetFullPath(input)) ?? Path.GetFullPath(input);
            if (IsSameOrInside(resolvedTarget, resolvedInput) || IsSameOrInside(resolvedInput, resolvedTarget))
            {
                throw new QuantException(ErrorKind.Usage, "the output would overwrite its own input")
                {
                    Path = target,
                    Found = $"input {input}",
                    Remedy = "Choose another path.",
                };
            }
        }

        bool isFile = files.FileExists(output.Target);
        bool isDirectory = files.DirectoryExists(output.Target);
        if ((isFile && isFolder) || (isDirectory && !isFolder))
        {
            throw new QuantException(ErrorKind.Usage, isFolder ? "a file has the name of the output folder" : "a folder has the name of the output file")
            {
                Path = target,
                Remedy = "Choose another path.",
            };
        }

        if ((isFile || isDirectory) && !force)
        {
            throw new QuantException(ErrorKind.Usage, "the output exists") { Path = target, Remedy = "Choose another path, or pass --force to replace it." };
        }

        long free = Guard(output.Target, () => files.FreeBytes(output.Target));
        if (free < plannedBytes)
        {
            throw new QuantException(ErrorKind.Resource, "the disk has too little room for the output")
            {
                Path = target,
                Found = $"{free} bytes free",
                Expected = $"{plannedBytes} bytes",
            };
        }
    }

    /// <summary>Begins the output; what an earlier, interrupted run left under the temporary name is removed.</summary>
    public static PendingOutput Begin(IFileLayer files, string target, OutputKind kind)
    {
        PendingOutput output = new(files, target, kind);
        Guard(output.TemporaryPath, () =>
        {
            if (files.IsInUse(output.TemporaryPath))
            {
                throw new QuantException(ErrorKind.Busy, "another run is writing this output") { Path = target, Remedy = "Wait for it to end." };
            }

            files.Delete(output.TemporaryPath);
            if (kind != OutputKind.File) files.CreateDirectory(output.TemporaryPath);
        });
        return output;
    }

    /// <summary>Goes on with what earlier runs with equal settings left, and others write at once; a <see cref="WorkFolder"/> sees to that.</summary>
    /// <param name="plannedFiles">Names of the files, of which a run that was stopped while it published may have moved some.</param>
    public static PendingOutput Continue(IFileLayer files, string target, OutputKind kind, IEnumerable<string> plannedFiles, bool isPublishing)
    {
        PendingOutput output = new(files, target, kind, isShared: true);
        Guard(output.TemporaryPath, () =>
        {
            if (kind == OutputKind.File) return;
            files.CreateDirectory(output.TemporaryPath);
            if (!isPublishing || kind != OutputKind.Parts) return;
            foreach (string name in plannedFiles)
            {
                string final = Path.Combine(output.Parent, name), temporary = output.PathOf(name);
                if (!files.FileExists(temporary) && files.FileExists(final)) files.Rename(final, temporary, overwrite: false);
            }
        });
        return output;
    }

    /// <summary>Where a planned file lies until publication; for a single file the output itself.</summary>
    public string PathOf(string fileName) => Kind == OutputKind.File ? TemporaryPath : Path.Combine(TemporaryPath, fileName);

    /// <summary>Creates a planned file with its header written; the caller fills the tensors.</summary>
    public IWriteFile Create(PlannedFile file)
    {
        string path = PathOf(file.Name);
        return Guard(path, () =>
        {
            IWriteFile created = _isShared ? _files.OpenWrite(path, file.ByteLength) : _files.Create(path, file.ByteLength);
            _open.Add(created);
            created.Write(0, file.Header);
            return created;
        });
    }

    /// <summary>Writes a small file of an output folder.</summary>
    public void WriteFile(string fileName, ReadOnlyMemory<byte> bytes)
    {
        string path = PathOf(fileName);
        Guard(path, () =>
        {
            IWriteFile created = _isShared ? _files.OpenWrite(path, bytes.Length) : _files.Create(path, bytes.Length);
            _open.Add(created);
            created.Write(0, bytes.Span);
        });
    }

    /// <summary>Flushes and closes every file. An error here is final: a flush is never retried.</summary>
    public void Flush()
    {
        foreach (IWriteFile file in _open) Guard(file.Path, file.FlushToDisk);
        Close();
        if (Kind != OutputKind.File) Guard(TemporaryPath, () => _files.FlushDirectory(TemporaryPath));
    }

    /// <summary>Gives the output its name. Only after <see cref="Flush"/> and verification.</summary>
    public void Publish()
    {
        Guard(Target, () =>
        {
            string replaced = Path.Combine(Parent, "." + Path.GetFileName(Target) + ".replaced");
            if (Kind == OutputKind.Parts)
            {
                // Without a first part the others are no model, whatever happens before it is in place.
                _files.Delete(replaced);
                if (_files.FileExists(Target)) _files.Rename(Target, replaced, overwrite: false);
                foreach (string name in _files.List(TemporaryPath).Reverse())
                {
                    string part = Path.Combine(Parent, name);
                    _files.Rename(Path.Combine(TemporaryPath, name), part, overwrite: true);
                    _moved.Add(part);
                }

                _files.FlushDirectory(Parent);
                _published = true;
                _files.Delete(TemporaryPath);
                _files.Delete(replaced);
            }
            else if (Kind == OutputKind.Folder && _files.DirectoryExists(Target))
            {
                _files.Delete(replaced);
                _files.Rename(Target, replaced, overwrite: false);
                _files.Rename(TemporaryPath, Target, overwrite: false);
                _published = true;
                _files.FlushDirectory(Parent);
                _files.Delete(replaced);
            }
            else
            {
                _files.Rename(TemporaryPath, Target, overwrite: true);
                _published = true;
                _files.FlushDirectory(Parent);
            }
        });
    }

    /// <summary>Publishes one small file (a report) the same way, replacing an older one.</summary>
    public static void PublishSmallFile(IFileLayer files, string target, ReadOnlyMemory<byte> bytes)
    {
        using PendingOutput output = Begin(files, target, OutputKind.File);
        IWriteFile file = output.Create(new PlannedFile(Path.GetFileName(target), bytes.ToArray(), bytes.Length, []));
        output.Flush();
        output.Publish();
    }

    /// <summary>Writes a small file whole or not at all, but for a power cut, after which it may be missing or empty: for what can be made again.</summary>
    public static void WriteSmallFile(IFileLayer files, string target, ReadOnlyMemory<byte> bytes)
    {
        // Runs that share the work may write the same file at once.
        string temporary = TemporaryPathOf($"{target}.{Guid.NewGuid():N}");
        Guard(temporary, () =>
        {
            using (IWriteFile file = files.Create(temporary, bytes.Length)) file.Write(0, bytes.Span);
            files.Rename(temporary, target, overwrite: true);
        });
    }

    public void Dispose()
    {
        Close();
        if (_published || Keeps) return;
        try
        {
            foreach (string part in _moved) _files.Delete(part);
            _files.Delete(TemporaryPath);
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            // The failure that brought us here is the one to report; the next run removes what is left.
        }
    }

    /// <summary>The typed error for a failed write.</summary>
    public static QuantException Failed(string path, Exception error) => new(ErrorKind.Resource, $"cannot be written: {error.Message}", error)
    {
        Path = path,
        Remedy = "Nothing was published; the source is untouched.",
    };

    private void Close()
    {
        foreach (IWriteFile file in _open) file.Dispose();
        _open.Clear();
    }

    private static bool IsSameOrInside(string path, string container) =>
        path == container || path.StartsWith(Path.TrimEndingDirectorySeparator(container) + Path.DirectorySeparatorChar, StringComparison.Ordinal);

    private static QuantException Refused(string summary, string path, string remedy) => new(ErrorKind.Resource, summary) { Path = path, Remedy = remedy };

    /// <summary>Turns failures of the disk into typed errors that name a path.</summary>
    internal static void Guard(string path, Action action) => Guard(path, () =>
    {
        action();
        return true;
    });

    private static T Guard<T>(string path, Func<T> action)
    {
        try
        {
            return action();
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw Failed(path, error);
        }
    }
}
