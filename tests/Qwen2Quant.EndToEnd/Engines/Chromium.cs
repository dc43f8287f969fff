using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>Chromium without a window.</summary>
internal static class Chromium
{
    /// <summary>The program, or null when this machine does not have it.</summary>
    public static string? Path { get; } = Find();

    /// <summary>The document after its scripts have run, and what the browser said on its console.</summary>
    /// <param name="fragment">With the number sign, or empty.</param>
    public static (string Document, string[] Console) Load(TempFolder folder, string page, string fragment)
    {
        string[] arguments =
        [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0",
            $"--user-data-dir={folder.File(Guid.NewGuid().ToString("N"))}", "--dump-dom", new Uri(folder.Write("report.html", page)).AbsoluteUri + fragment,
        ];
        CliResult result = new CliCommand(arguments) { Executable = Path }.Run().Expect(0);
        return (result.Output, [.. result.Error.Split('\n').Where(line => line.Contains("CONSOLE", StringComparison.Ordinal))]);
    }

    private static string? Find()
    {
        IEnumerable<string> folders = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(System.IO.Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries).Prepend("/usr/bin");
        return folders.Select(folder => System.IO.Path.Combine(folder, "chromium")).FirstOrDefault(File.Exists);
    }
}

/// <summary>A fact that needs Chromium; skipped, visibly, without it.</summary>
public sealed class ChromiumFactAttribute : FactAttribute
{
    public ChromiumFactAttribute()
    {
        if (Chromium.Path is null) Skip = "needs chromium in /usr/bin or in PATH";
    }
}
