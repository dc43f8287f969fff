using System.Globalization;

namespace Qwen2Quant.Cli.Output;

/// <summary>Numbers as people read them; invariant culture.</summary>
internal static class Format
{
    /// <summary>Bytes in decimal units, as disks and download pages count.</summary>
    public static string Bytes(long bytes) => bytes switch
    {
        >= 1_000_000_000 => Number(bytes / 1e9, "0.00") + " GB",
        >= 1_000_000 => Number(bytes / 1e6, "0.0") + " MB",
        >= 1_000 => Number(bytes / 1e3, "0.0") + " kB",
        _ => Number(bytes, "0") + " B",
    };

    public static string Duration(TimeSpan span) => span.TotalSeconds switch
    {
        < 60 => Number(span.TotalSeconds, "0.0") + " s",
        < 3600 => $"{(int)span.TotalMinutes} min {span.Seconds} s",
        _ => $"{(int)span.TotalHours} h {span.Minutes} min",
    };

    public static string Number(double value, string format) => value.ToString(format, CultureInfo.InvariantCulture);
}
