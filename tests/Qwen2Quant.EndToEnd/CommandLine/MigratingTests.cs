using System.Text.RegularExpressions;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>The examples of docs/migrating.md run as they stand, one after the other in one folder; those that name a model of the reader's own take the built-in one.</summary>
public sealed partial class MigratingTests : IDisposable
{
    private const string ReadersModel = "model-BF16.gguf";

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void ExamplesRun()
    {
        string[] examples = [.. File.ReadAllLines(Path.Combine(Repository.Root, "docs", "migrating.md")).Where(line => line.StartsWith("qwen2quant ", StringComparison.Ordinal))];
        Assert.True(examples.Length >= 7);
        CliCommand.Succeed("convert", Models.Tiny, "--to", "gguf", "--type", "bf16", "--out", _folder.File(ReadersModel));
        // A user of llama-quantize has an importance matrix already.
        CliCommand.Succeed("calibrate", Models.Tiny, "--data", "builtin:calibration", "--samples", "2", "--out", _folder.File("im.gguf"));
        foreach (string example in examples)
        {
            string[] arguments = [.. Words().Matches(example).Skip(1).Select(word => word.Value.Trim('\''))];
            string[] force = arguments.Contains("--out") ? ["--force"] : [];
            new CliCommand([.. arguments, .. force]) { WorkingDirectory = _folder.Path }.Run().Expect(0);
        }
    }

    [GeneratedRegex("'[^']*'|[^ ]+")]
    private static partial Regex Words();
}
