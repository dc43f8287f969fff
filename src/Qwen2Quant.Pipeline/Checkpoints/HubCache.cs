using System.Text;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>
/// The Hugging Face cache, read-only and offline: <c>models--org--name/refs/REVISION</c> holds a commit,
/// <c>snapshots/COMMIT/</c> its files, as links to <c>blobs/</c> or as files.
/// </summary>
public sealed partial class HubCache(IFileLayer files, string root)
{
    /// <summary>The hub's own ceiling on the length of a repository's name.</summary>
    private const int LongestName = 96;

    private const int LongestReference = 256;

    /// <summary>The cache that the environment names, in Hugging Face's order.</summary>
    public static HubCache FromEnvironment(IFileLayer files)
    {
        string? explicitCache = Variable("HF_HUB_CACHE");
        if (explicitCache is not null) return new HubCache(files, explicitCache);
        string home = Variable("HF_HOME")
            ?? Path.Combine(Variable("XDG_CACHE_HOME") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"), "huggingface");
        return new HubCache(files, Path.Combine(home, "hub"));
    }

    /// <summary>True for text that is meant as a model id rather than as a path.</summary>
    public static bool LooksLikeModelId(string model) =>
        model.Contains('/') && !model.StartsWith('.') && !model.StartsWith('/') && !model.StartsWith('~') && !model.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase);

    /// <summary>Folder of the snapshot that <c>org/name[@revision]</c> names, checked: no download under way, no link out of the repository.</summary>
    public string FindSnapshot(string model)
    {
        int at = model.IndexOf('@');
        string id = at < 0 ? model : model[..at];
        string revision = at < 0 ? "main" : model[(at + 1)..];
        RequireModelId(model, id, revision);

        string repository = Path.Combine(root, "models--" + id.Replace("/", "--", StringComparison.Ordinal));
        string download = $"Download it first: hf download {id}{(at < 0 ? "" : $" --revision {revision}")}";
        if (!files.DirectoryExists(repository))
        {
            throw new QuantException(ErrorKind.InvalidInput, $"'{id}' is neither a path nor in the Hugging Face cache") { Path = root, Remedy = download };
        }

        RequireDownloadFinished(repository, download);
        string commit = IsCommit(revision) && files.DirectoryExists(Path.Combine(repository, "snapshots", revision))
            ? revision
            : ReadReference(repository, revision, download);
        string snapshot = Path.Combine(repository, "snapshots", commit);
        if (!files.DirectoryExists(snapshot)) throw BadRevision(snapshot, $"commit {commit} is not in the cache", download);
        RequireOwnBlobs(repository, snapshot);
        return snapshot;
    }

    private static void RequireModelId(string model, string id, string revision)
    {
        bool isId = IdPattern().IsMatch(id) && !id.Contains("--", StringComparison.Ordinal) && !id.Contains("..", StringComparison.Ordinal)
            && id.Split('/').All(part => part.Length <= LongestName);
        bool isRevision = RevisionPattern().IsMatch(revision) && !revision.Contains("..", StringComparison.Ordinal) && revision.Length <= LongestReference;
        if (isId && isRevision) return;
        throw new QuantException(ErrorKind.Usage, "this is no model id") { Rule = PipelineRules.ModelId, Found = model, Expected = "org/name or org/name@revision" };
    }

    private void RequireDownloadFinished(string repository, string download)
    {
        string blobs = Path.Combine(repository, "blobs");
        string? unfinished = files.DirectoryExists(blobs) ? files.ListTyped(blobs).FirstOrDefault(name => name.EndsWith(".incomplete", StringComparison.Ordinal)) : null;
        if (unfinished is null) return;
        throw new QuantException(ErrorKind.InvalidInput, "the download is unfinished")
        {
            Rule = PipelineRules.DownloadFinished,
            Path = Path.Combine(blobs, unfinished),
            Remedy = download,
        };
    }

    private string ReadReference(string repository, string revision, string download)
    {
        string path = Path.Combine(repository, "refs", revision);
        if (!files.FileExists(path)) throw BadRevision(path, "the revision is not in the cache", download);
        string commit = Encoding.UTF8.GetString(files.ReadAllBytes(path, LongestReference));
        if (!IsCommit(commit)) throw BadRevision(path, "the file does not hold a commit", download, commit);
        return commit;
    }

    private static QuantException BadRevision(string path, string summary, string download, string? found = null) =>
        new(ErrorKind.InvalidInput, summary) { Rule = PipelineRules.CacheRevision, Path = path, Found = found, Remedy = download };

    private void RequireOwnBlobs(string repository, string snapshot)
    {
        string blobs = Path.GetFullPath(Path.Combine(repository, "blobs")) + Path.DirectorySeparatorChar;
        foreach (string name in files.ListTyped(snapshot))
        {
            string path = Path.GetFullPath(Path.Combine(snapshot, name));
            string? target = files.ResolveLink(path);
            if (target == path || (target is not null && target.StartsWith(blobs, StringComparison.Ordinal))) continue;
            throw new QuantException(ErrorKind.InvalidInput, target is null ? "the link leads nowhere" : "the link leads out of its repository")
            {
                Rule = PipelineRules.CacheLinks,
                Path = path,
                Found = target,
                Expected = $"a file in {blobs}",
            };
        }
    }

    private static bool IsCommit(string text) => text.Length == 40 && text.All(char.IsAsciiHexDigitLower);

    private static string? Variable(string name) => Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;

    [GeneratedRegex(@"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*\z")]
    private static partial Regex IdPattern();

    [GeneratedRegex(@"^[A-Za-z0-9_][A-Za-z0-9_./-]*\z")]
    private static partial Regex RevisionPattern();
}
