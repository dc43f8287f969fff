using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Reports;

namespace Qwen2Quant.Pipeline.Publishing;

/// <summary>
/// What is done of an output that has no name yet, in a folder <c>.NAME.work</c> beside it: the settings that decide its bytes, the records of written slabs, the layers
/// that were solved. A run that ends early leaves it; one with equal settings may go on there, any other begins anew.
/// </summary>
internal sealed class WorkFolder : IDisposable
{
    private const string SettingsFile = "settings.json", PublishingFile = "publishing", LockPrefix = "lock-";

    private readonly IFileLayer _files;
    private readonly IDisposable _lock;

    private WorkFolder(IFileLayer files, string path, IDisposable held)
    {
        _files = files;
        Path = path;
        _lock = held;
    }

    public string Path { get; }

    /// <summary>There is something to go on with.</summary>
    public bool IsResumed { get; private init; }

    /// <summary>There was something, and it is gone.</summary>
    public bool IsRestarted { get; private init; }

    /// <summary>The folder of an output.</summary>
    public static string PathOf(string target) => PendingOutput.HiddenBeside(target, ".work");

    /// <summary>True when a run was stopped while it gave its files their names.</summary>
    public static bool IsPublishing(IFileLayer files, string target) => files.FileExists(System.IO.Path.Combine(PathOf(target), PublishingFile));

    /// <summary>Opens the folder of an output.</summary>
    /// <param name="settings">What decides the output's bytes.</param>
    /// <param name="resume">Keeps what a run with equal settings left; otherwise it is removed.</param>
    /// <param name="part">Of several runs that work on one output at once; null for one that is alone.</param>
    /// <exception cref="QuantException">Usage: what there is to go on with had other settings. Busy: another run has it. Resource: the disk fails.</exception>
    public static WorkFolder Open(IFileLayer files, string target, IReadOnlyDictionary<string, string> settings, bool resume, int? part = null)
    {
        string path = PathOf(target), settingsPath = System.IO.Path.Combine(path, SettingsFile);
        IDisposable? held = null;
        try
        {
            bool exists = files.DirectoryExists(path), keeps = exists && resume && files.FileExists(settingsPath);
            if (part is null && (files.IsInUse(PendingOutput.TemporaryPathOf(target)) || (exists && files.IsInUse(path)))) throw Busy(target);
            if (keeps)
            {
                IReadOnlyDictionary<string, string>? left = JsonFile.ReadOrNull(files, settingsPath, ReportJson.Default.IReadOnlyDictionaryStringString);
                if (left is null || RunSettings.Difference(left, settings) is not null)
                {
                    throw new QuantException(ErrorKind.Usage, "--resume cannot go on: the interrupted run had other settings")
                    {
                        Path = path, Found = left is null ? "they cannot be read" : RunSettings.Difference(left, settings), Remedy = "Repeat its options, or leave --resume out to start again.",
                    };
                }
            }
            else if (part is null || !exists)
            {
                if (part is null) files.Delete(path);
                files.CreateDirectory(path);
            }

            held = files.TryLock(System.IO.Path.Combine(path, $"{LockPrefix}{part ?? 0}")) ?? throw Busy(target);
            if (!keeps) PendingOutput.WriteSmallFile(files, settingsPath, JsonSerializer.SerializeToUtf8Bytes(settings, ReportJson.Default.IReadOnlyDictionaryStringString));
            return new WorkFolder(files, path, held) { IsResumed = keeps, IsRestarted = exists && !keeps && part is null };
        }
        catch (Exception error)
        {
            held?.Dispose();
            if (FileExtensions.IsDiskFailure(error)) throw PendingOutput.Failed(path, error);
            throw;
        }
    }

    /// <summary>From here on files of the output may have their final names.</summary>
    public void BeginPublishing()
    {
        string path = System.IO.Path.Combine(Path, PublishingFile);
        PendingOutput.Guard(path, () => _files.OpenWrite(path, 0).Dispose());
    }

    /// <summary>Removes the folder.</summary>
    public void Delete()
    {
        Dispose();
        Delete(_files, Path);
    }

    /// <summary>Removes what a run left that was stopped after it had published its output.</summary>
    public static void Delete(IFileLayer files, string path)
    {
        try
        {
            files.Delete(path);
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            // The output is complete, or the failure that brought us here is reported; the next run removes what is left.
        }
    }

    public void Dispose() => _lock.Dispose();

    private static QuantException Busy(string target) => new(ErrorKind.Busy, "another run is writing this output") { Path = target, Remedy = "Wait for it to end." };
}
