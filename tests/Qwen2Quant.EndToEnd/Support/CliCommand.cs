using System.Diagnostics;
using System.Text;
using System.Text.Json;

namespace Qwen2Quant.EndToEnd.Support;

/// <summary>What a run of the program left behind.</summary>
public sealed record CliResult(string CommandLine, int ExitCode, string Output, string Error)
{
    /// <summary>Standard output as one JSON document; anything else beside it fails.</summary>
    public JsonElement Json()
    {
        using JsonDocument document = JsonDocument.Parse(Output);
        return document.RootElement.Clone();
    }

    /// <summary>Fails, with what was said on standard error, unless the exit code is this one.</summary>
    public CliResult Expect(int exitCode)
    {
        Assert.True(ExitCode == exitCode, $"{CommandLine}\nexit code {ExitCode}, not {exitCode}\n{Error}\n{Output[..Math.Min(Output.Length, 1000)]}");
        return this;
    }
}

/// <summary>The built program as a process, in an environment without variables that change what it does.</summary>
/// <param name="Arguments">Command line after the program's name.</param>
public sealed record CliCommand(params string[] Arguments)
{
    private static readonly string[] Cleared =
        ["NO_COLOR", "TERM", "LC_ALL", "LANG", "LC_NUMERIC", "QWEN2QUANT_SIMD", "TMPDIR", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "DOTNET_TieredCompilation"];

    /// <summary>What the project reference copied beside the tests.</summary>
    public static string Assembly { get; } = Path.Combine(AppContext.BaseDirectory, "qwen2quant.dll");

    /// <summary>A native executable to run instead of <see cref="Assembly"/>.</summary>
    public string? Executable { get; init; }

    public string Input { get; init; } = "";

    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();

    public string? WorkingDirectory { get; init; }

    /// <summary>A run that takes longer is killed and fails the test; generous, as the machine may be busy.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromMinutes(3);

    private string CommandLine => $"{Executable ?? "qwen2quant"} {string.Join(' ', Arguments)}";

    /// <summary>Runs the program with these arguments and expects it to succeed.</summary>
    public static CliResult Succeed(params string[] arguments) => new CliCommand(arguments).Run().Expect(0);

    /// <summary>The host that runs assemblies, as the SDK names it to its children.</summary>
    public static string DotnetPath { get; } = System.Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") is { Length: > 0 } path ? path : "dotnet";

    public CliResult Run()
    {
        using Process process = Start();
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        Feed(process);
        return Finish(process, output, error);
    }

    /// <summary>Starts it and returns; the caller feeds, reads and ends it.</summary>
    public Process Start()
    {
        ProcessStartInfo start = Executable is null ? new ProcessStartInfo(DotnetPath, [Assembly, .. Arguments]) : new ProcessStartInfo(Executable, Arguments);
        start.RedirectStandardInput = start.RedirectStandardOutput = start.RedirectStandardError = true;
        start.StandardInputEncoding = start.StandardOutputEncoding = start.StandardErrorEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        if (WorkingDirectory is not null) start.WorkingDirectory = WorkingDirectory;
        foreach (string name in Cleared) start.Environment.Remove(name);
        foreach ((string name, string value) in Environment) start.Environment[name] = value;
        return Process.Start(start)!;
    }

    /// <summary>Waits for the end of a started process whose streams are being read.</summary>
    public CliResult Finish(Process process, Task<string> output, Task<string> error)
    {
        if (!process.WaitForExit(Timeout))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"{CommandLine}\nstill runs after {Timeout}\n{error.GetAwaiter().GetResult()}");
        }

        return new CliResult(CommandLine, process.ExitCode, output.GetAwaiter().GetResult(), error.GetAwaiter().GetResult());
    }

    private void Feed(Process process)
    {
        try
        {
            process.StandardInput.Write(Input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It ended without reading its input, as it may.
        }
    }
}
