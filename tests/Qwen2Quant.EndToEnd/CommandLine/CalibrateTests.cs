using System.Text.Json;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary><c>calibrate</c>, and <c>quantize</c> with what it made, as a user runs them.</summary>
public sealed class CalibrateTests(ITestOutputHelper print) : IDisposable
{
    private static readonly string[] Short = ["--samples", "3", "--context", "64"];

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void JsonHasTheKeysOfTheContract()
    {
        JsonElement report = CliCommand.Succeed(["calibrate", Models.Tiny, "--data", "builtin:calibration", "--out", _folder.File("im.gguf"), .. Short, "--json"]).Json();
        foreach (string key in new[] { "version", "source", "output", "format", "depth", "data", "inputs", "bytes", "entries", "chunks", "context", "tokens", "perplexity", "standard_error", "seconds", "tokens_per_second", "events" })
        {
            Assert.True(report.TryGetProperty(key, out _), key);
        }

        Assert.Equal((3, 64, 192, 21), (report.GetProperty("chunks").GetInt32(), report.GetProperty("context").GetInt32(), report.GetProperty("tokens").GetInt32(), report.GetProperty("entries").GetInt32()));
        print.WriteLine(report.ToString());
    }

    [Fact]
    public void FormatsConvertIntoOneAnother()
    {
        string gguf = _folder.File("a.gguf"), dat = _folder.File("b.dat"), back = _folder.File("c.gguf");
        CliCommand.Succeed(["calibrate", Models.Tiny, "--data", "builtin:calibration", "--out", gguf, .. Short]);
        JsonElement report = CliCommand.Succeed("calibrate", Models.Tiny, "--in", gguf, "--out", dat, "--json").Json();
        Assert.Equal("dat", report.GetProperty("format").GetString());
        Assert.False(report.TryGetProperty("perplexity", out _));
        CliCommand.Succeed("calibrate", Models.Tiny, "--in", dat, "--out", back);
        Imatrix[] read = [.. new[] { gguf, dat, back }.Select(path => ImatrixReader.Read(DiskFileLayer.Instance, path, new ReadOptions()))];
        foreach (Imatrix converted in read[1..])
        {
            Assert.Equal(read[0].Datasets, converted.Datasets);
            Assert.Equal(read[0].ChunkCount, converted.ChunkCount);
            foreach ((ImatrixEntry expected, ImatrixEntry found) in read[0].Entries.Zip(converted.Entries))
            {
                Assert.Equal(expected.Name, found.Name);
                Assert.Equal(expected.MeanSquares(), found.MeanSquares(), (a, b) => Math.Abs(a - b) <= 1e-6f * a);
            }
        }
    }

    [Fact]
    public void FilesAndATextAddUp()
    {
        string first = _folder.File("first.gguf"), both = _folder.File("both.gguf");
        CliCommand.Succeed(["calibrate", Models.Tiny, "--data", "builtin:calibration", "--out", first, .. Short]);
        JsonElement report = CliCommand.Succeed(["calibrate", Models.Tiny, "--data", "builtin:text", "--in", first, "--out", both, .. Short, "--json"]).Json();
        Assert.Equal(6, report.GetProperty("chunks").GetInt32());
        Assert.Equal([first], report.GetProperty("inputs").EnumerateArray().Select(item => item.GetString()));
    }

    [Fact]
    public void CollectingFirstEqualsAFile()
    {
        string imatrix = _folder.File("im.gguf"), fromFile = _folder.File("file.gguf"), collected = _folder.File("collected.gguf");
        CliCommand.Succeed(["calibrate", Models.Tiny, "--data", "builtin:calibration", "--out", imatrix, .. Short]);
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", fromFile, "--imatrix", imatrix);
        CliResult run = CliCommand.Succeed(["quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", collected, "--calibration", "builtin:calibration", .. Short]);
        Assert.Contains("importance collected on 3 windows of 64 tokens", run.Error, StringComparison.Ordinal);
        using GgufFile a = Models.OpenGguf(fromFile), b = Models.OpenGguf(collected);
        Assert.All(a.Tensors, tensor => Assert.Equal(Models.Bytes(a, tensor), Models.Bytes(b, b.Find(tensor.Name)!)));
        JsonElement plan = CliCommand.Succeed(["quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", _folder.File("plan.gguf"), "--calibration", "builtin:calibration", "--dry-run", "--json", .. Short]).Json();
        Assert.Equal(new FileInfo(collected).Length, plan.GetProperty("bytes").GetInt64());
    }

    [Theory]
    [InlineData(2, "--depth diagonal", "calibrate builtin:tiny --data builtin:text --out x.gguf --depth gram --format dat")]
    [InlineData(2, "--data", "calibrate builtin:tiny --out x.gguf")]
    [InlineData(2, "--samples", "calibrate builtin:tiny --data builtin:text --out x.gguf --samples 0")]
    [InlineData(2, "--context", "calibrate builtin:tiny --data builtin:text --out x.gguf --context 1")]
    [InlineData(3, "too short", "calibrate builtin:tiny --data short.txt --out x.gguf")]
    [InlineData(3, "IM-121", "calibrate builtin:tiny --in short.txt --out x.gguf")]
    [InlineData(3, "IM-121", "quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --imatrix short.txt")]
    [InlineData(3, "does not exist", "quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --imatrix missing.gguf")]
    [InlineData(2, "exclude one another", "quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --imatrix a --calibration b")]
    [InlineData(2, "exclude one another", "quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --imatrix a --include-weights b --exclude-weights c")]
    [InlineData(2, "--imatrix", "quantize builtin:tiny --to gguf:Q4_0 --out x.gguf --include-weights b")]
    [InlineData(2, "--force", "calibrate builtin:tiny --data builtin:text --out short.txt")]
    [InlineData(2, "--force", "quantize builtin:tiny --to gguf:Q4_0 --calibration builtin:text --out short.txt")]
    public void RefusalsSayWhyAndLeaveNothing(int exitCode, string reason, string line)
    {
        _folder.Write("short.txt", "It was a dark and stormy night.");
        CliResult result = new CliCommand(line.Split(' ')) { WorkingDirectory = _folder.Path }.Run().Expect(exitCode);
        Assert.Contains(reason, result.Error, StringComparison.Ordinal);
        Assert.Equal("", result.Output);
        Assert.Equal(["short.txt"], Directory.EnumerateFileSystemEntries(_folder.Path).Select(Path.GetFileName));
    }
}
