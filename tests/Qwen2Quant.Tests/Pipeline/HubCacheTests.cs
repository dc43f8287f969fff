using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

public sealed class HubCacheTests : IDisposable
{
    private const string Commit = "0123456789abcdef0123456789abcdef01234567";
    private readonly TempFolder _root = new();

    public void Dispose() => _root.Dispose();

    [Fact]
    public void FollowsTheReferenceToTheSnapshot()
    {
        MakeRepository();
        Assert.Equal(Snapshot(), Cache().FindSnapshot("Qwen/Qwen2-0.5B"));
        Assert.Equal(Snapshot(), Cache().FindSnapshot("Qwen/Qwen2-0.5B@main"));
        Assert.Equal(Snapshot(), Cache().FindSnapshot($"Qwen/Qwen2-0.5B@{Commit}"));
    }

    [Fact]
    public void AMissingModelNamesTheDownloadCommand()
    {
        QuantException error = Refuses(null, () => Cache().FindSnapshot("Qwen/Qwen2-7B"));
        Assert.Contains("hf download Qwen/Qwen2-7B", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a/b/c")]
    [InlineData("../b")]
    [InlineData("a/..")]
    [InlineData("a/b--c")]
    [InlineData("a--b/c")]
    [InlineData("a/b@../../x")]
    [InlineData("a/b@")]
    public void IdsThatAreNoneAreUsageErrors(string id)
    {
        QuantException error = Refuses(PipelineRules.ModelId, () => Cache().FindSnapshot(id));
        Assert.Equal(ErrorKind.Usage, error.Kind);
    }

    [Fact]
    public void AnIdOf300CharactersIsAUsageError() => Refuses(PipelineRules.ModelId, () => Cache().FindSnapshot("a/" + new string('b', 300)));

    [Theory]
    [InlineData("")]
    [InlineData(Commit + "\n")]
    [InlineData("../../../etc")]
    [InlineData("ffffffffffffffffffffffffffffffffffffffff")]
    public void BadReferencesAreRefused(string content)
    {
        MakeRepository();
        _root.Write("models--Qwen--Qwen2-0.5B/refs/main", content);
        Refuses(PipelineRules.CacheRevision, () => Cache().FindSnapshot("Qwen/Qwen2-0.5B"));
    }

    [Fact]
    public void AMissingReferenceIsRefused()
    {
        MakeRepository();
        Refuses(PipelineRules.CacheRevision, () => Cache().FindSnapshot("Qwen/Qwen2-0.5B@v9"));
    }

    [Fact]
    public void AnUnfinishedDownloadIsRefused()
    {
        MakeRepository();
        _root.Write("models--Qwen--Qwen2-0.5B/blobs/abc.incomplete", "x");
        Refuses(PipelineRules.DownloadFinished, () => Cache().FindSnapshot("Qwen/Qwen2-0.5B"));
    }

    [Theory]
    [InlineData("/etc/hostname")]
    [InlineData("../../../../elsewhere")]
    [InlineData("../../blobs/absent")]
    [InlineData("loop")]
    public void LinksOutOfTheRepositoryAreRefused(string target)
    {
        if (OperatingSystem.IsWindows()) return;
        MakeRepository();
        _root.Write("elsewhere", "x");
        File.CreateSymbolicLink(Path.Combine(Snapshot(), "loop"), target);
        Refuses(PipelineRules.CacheLinks, () => Cache().FindSnapshot("Qwen/Qwen2-0.5B"));
    }

    [Fact]
    public void RealFilesInPlaceOfLinksAreAccepted()
    {
        MakeRepository();
        _root.Write($"models--Qwen--Qwen2-0.5B/snapshots/{Commit}/config.json", "{}");
        Assert.Equal(Snapshot(), Cache().FindSnapshot("Qwen/Qwen2-0.5B"));
    }

    private static QuantException Refuses(Rule? rule, Action action)
    {
        QuantException error = Assert.Throws<QuantException>(action);
        Assert.Equal(rule, error.Rule);
        return error;
    }

    private HubCache Cache() => new(DiskFileLayer.Instance, _root.Path);

    private string Snapshot() => _root.File($"models--Qwen--Qwen2-0.5B/snapshots/{Commit}");

    private void MakeRepository()
    {
        _root.Write("models--Qwen--Qwen2-0.5B/refs/main", Commit);
        _root.Write("models--Qwen--Qwen2-0.5B/blobs/aaaa", "weights");
        Directory.CreateDirectory(Snapshot());
        if (!OperatingSystem.IsWindows()) File.CreateSymbolicLink(Path.Combine(Snapshot(), "model.safetensors"), "../../blobs/aaaa");
    }
}
