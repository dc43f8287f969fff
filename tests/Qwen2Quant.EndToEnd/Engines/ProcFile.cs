using System.Globalization;
using System.Text;

namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>A process as <c>/proc</c> shows it; one that has ended, or that may not be looked at, shows nothing.</summary>
public sealed record ProcFile(int Id)
{
    public IReadOnlyList<string> CommandLine => Words("cmdline");

    public int Parent
    {
        get
        {
            string status = Encoding.UTF8.GetString(Read("stat"));
            // The name, in parentheses, may hold anything.
            string[] fields = status[(status.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            return fields.Length > 1 ? int.Parse(fields[1], CultureInfo.InvariantCulture) : 0;
        }
    }

    public static IEnumerable<ProcFile> All() =>
        Directory.EnumerateDirectories("/proc").Select(Path.GetFileName).Where(name => int.TryParse(name, CultureInfo.InvariantCulture, out _)).Select(name => new ProcFile(int.Parse(name!, CultureInfo.InvariantCulture)));

    public bool HasVariable(string name, string value) => Words("environ").Contains($"{name}={value}");

    /// <summary>True when it was started with the folder in its environment or its command line, works in it, or has a file of it open.</summary>
    public bool Touches(string folder)
    {
        if (Words("environ").Concat(Words("cmdline")).Any(word => word.Contains(folder, StringComparison.Ordinal))) return true;
        return Links().Any(target => target.StartsWith(folder, StringComparison.Ordinal));
    }

    private IEnumerable<string> Links()
    {
        List<string> links = [$"/proc/{Id}/cwd"];
        try
        {
            links.AddRange(Directory.GetFiles($"/proc/{Id}/fd"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }

        return links.Select(Target).OfType<string>();
    }

    private static string? Target(string link)
    {
        try
        {
            return File.ResolveLinkTarget(link, returnFinalTarget: false)?.FullName;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private string[] Words(string file) => Encoding.UTF8.GetString(Read(file)).Split('\0', StringSplitOptions.RemoveEmptyEntries);

    private byte[] Read(string file)
    {
        try
        {
            return File.ReadAllBytes($"/proc/{Id}/{file}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
