using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>A model named <c>org/name</c> is found in a Hugging Face cache made of links, as their library makes it.</summary>
public sealed class HubCacheTests : IDisposable
{
    private const string Commit = "0123456789abcdef0123456789abcdef01234567";

    private readonly TempFolder _cache = new();

    public void Dispose() => _cache.Dispose();

    [UnixTheory]
    [InlineData("tests/tiny")]
    [InlineData("tests/tiny@main")]
    [InlineData("tests/tiny@" + Commit)]
    public void AModelOfTheCacheIsOpened(string model)
    {
        LinkTheTinyModel();
        CliResult found = InCache("HF_HUB_CACHE", _cache.Path, "verify", model, "--json").Expect(0);
        Assert.Equal(CliCommand.Succeed("verify", Models.Tiny, "--json").Json().GetProperty("parameters").GetInt64(), found.Json().GetProperty("parameters").GetInt64());
    }

    [UnixFact]
    public void ConvertingFromTheCacheGivesTheSameTensorsAndLeavesItAlone()
    {
        LinkTheTinyModel();
        string[] before = Listing();
        using TempFolder outputs = new();
        InCache("HF_HUB_CACHE", _cache.Path, "convert", "tests/tiny", "--to", "safetensors", "--out", outputs.File("copy")).Expect(0);
        Assert.Equal(File.ReadAllBytes(Path.Combine(Models.TinyFolder, "tokenizer.json")), File.ReadAllBytes(outputs.File("copy/tokenizer.json")));
        Assert.Null(new FileInfo(outputs.File("copy/tokenizer.json")).LinkTarget);
        Assert.Equal(before, Listing());
        CliCommand.Succeed("compare", Models.Tiny, outputs.File("copy"), "--data", "builtin:text", "--chunks", "1", "--fail-above", "mean_kld=0");
    }

    [UnixFact]
    public void AnUnfinishedDownloadIsRefusedAndTheCacheIsFoundUnderHfHome()
    {
        LinkTheTinyModel("hub/");
        InCache("HF_HOME", _cache.Path, "inspect", "tests/tiny").Expect(0);
        _cache.Write("hub/models--tests--tiny/blobs/abc.incomplete", "x");
        CliResult refused = InCache("HF_HOME", _cache.Path, "inspect", "tests/tiny").Expect(3);
        Assert.Contains("[HF-64]", refused.Error, StringComparison.Ordinal);
        Assert.Contains("hf download tests/tiny", refused.Error, StringComparison.Ordinal);
    }

    private static CliResult InCache(string variable, string value, params string[] arguments) =>
        new CliCommand(arguments) { Environment = new Dictionary<string, string> { [variable] = value } }.Run();

    private string[] Listing() => [.. Directory.EnumerateFileSystemEntries(_cache.Path, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)];

    private void LinkTheTinyModel(string prefix = "")
    {
        string repository = prefix + "models--tests--tiny";
        _cache.Write($"{repository}/refs/main", Commit);
        string snapshot = _cache.File($"{repository}/snapshots/{Commit}");
        Directory.CreateDirectory(snapshot);
        foreach (string file in Directory.GetFiles(Models.TinyFolder))
        {
            string blob = $"blob-of-{Path.GetFileName(file)}";
            _cache.Write($"{repository}/blobs/{blob}", File.ReadAllBytes(file));
            File.CreateSymbolicLink(Path.Combine(snapshot, Path.GetFileName(file)), $"../../blobs/{blob}");
        }
    }
}
