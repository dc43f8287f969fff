using System.Diagnostics;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>Disks that are too small, fill up, or take nothing: exit code 6, nothing under the final name, and a later run goes on.</summary>
public sealed class FullDiskTests(LargeModel model, ITestOutputHelper print) : IClassFixture<LargeModel>, IDisposable
{
    private const string Enough = "size=200m";

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [MountFact]
    public void ADiskOfAnySizeIsNoTrap()
    {
        const int sizes = 10;
        string whole = _folder.File("whole.gguf");
        Quantize(whole).Run().Expect(0);
        byte[] expected = File.ReadAllBytes(whole);
        int refused = 0, filled = 0;
        for (int i = 0; i < sizes; i++)
        {
            long bytes = Math.Max(65536, expected.Length * (long)(i + 1) / sizes);
            bool fillsUp = i % 2 == 0;
            using TemporaryDisk disk = new(fillsUp ? 200_000_000 : bytes);
            string output = disk.File("m.gguf");
            CliCommand command = Quantize(output);
            CliResult result;
            if (fillsUp)
            {
                using Process process = command.Start();
                Task<string> text = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
                while (!process.HasExited && !File.Exists(disk.File(".m.gguf.partial"))) Thread.Sleep(1);
                disk.Remount($"size={Math.Max(bytes, Used(disk))}");
                result = command.Finish(process, text, error);
            }
            else
            {
                result = command.Run();
            }

            if (result.ExitCode == 0) continue;
            result.Expect(6);
            if (!fillsUp && bytes < expected.Length) Assert.Contains($"expected {expected.Length} bytes", result.Error, StringComparison.Ordinal);
            Assert.False(File.Exists(output));
            if (File.Exists(disk.File(".m.gguf.partial"))) filled++;
            else refused++;
            disk.Remount(Enough);
            new CliCommand([.. command.Arguments, "--resume"]).Run().Expect(0);
            Assert.True(File.ReadAllBytes(output).AsSpan().SequenceEqual(expected), $"{bytes} bytes: another output");
            Assert.Equal(["m.gguf", "m.gguf.qwen2quant.json"], Directory.GetFileSystemEntries(disk.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        }

        print.WriteLine($"{sizes} sizes up to {expected.Length} bytes: {refused} refused at once, {filled} filled up");
        Assert.True(refused > 0 && filled > 0, $"{refused} {filled}");
    }

    [MountFact]
    public void AReadOnlyDiskIsRefusedBeforeAnything()
    {
        using TemporaryDisk disk = new(50_000_000);
        string jobs = _folder.File("jobs.json");
        File.WriteAllText(jobs, """{ "models": ["builtin:tiny"], "schemes": ["gguf:Q8_0"] }""");
        CliCommand.Succeed("batch", "plan", jobs, "--out", disk.File("out"), "--quiet");
        disk.Remount("ro");
        Assert.Contains("Read-only", new CliCommand("quantize", Models.Tiny, "--to", "gguf:Q8_0", "--out", disk.File("m.gguf")).Run().Expect(6).Error, StringComparison.Ordinal);
        Assert.Contains("Read-only", new CliCommand("batch", "plan", jobs, "--out", disk.File("other")).Run().Expect(6).Error, StringComparison.Ordinal);
        Assert.Contains("Read-only", new CliCommand("batch", "work", "--manifest", disk.File("out")).Run().Expect(6).Error, StringComparison.Ordinal);
        disk.Remount("rw");
        CliCommand.Succeed("batch", "work", "--manifest", disk.File("out"), "--quiet");
    }

    private CliCommand Quantize(string output) => new("quantize", model.SmallPath, "--to", "gguf:Q5_1", "--out", output, "--threads", "1", "--quiet") { Environment = new Dictionary<string, string> { ["QWEN2QUANT_SIMD"] = "scalar" } };

    /// <summary>A file system cannot be made smaller than what it holds.</summary>
    private static long Used(TemporaryDisk disk)
    {
        DriveInfo drive = new(disk.Path);
        return drive.TotalSize - drive.AvailableFreeSpace + (1 << 20);
    }
}
