namespace Qwen2Quant.EndToEnd.Support;

/// <summary>What this process does with signals, which programs that it starts inherit.</summary>
public static class Signals
{
    /// <summary>True when the tests were started with the signal ignored (<c>SigIgn</c> of the process, proc(5)); it stays so through exec.</summary>
    public static bool IsIgnoredHere(int signal)
    {
        const string status = "/proc/self/status", field = "SigIgn:";
        if (!File.Exists(status)) return false;
        string mask = File.ReadLines(status).First(line => line.StartsWith(field, StringComparison.Ordinal))[field.Length..].Trim();
        return ((Convert.ToUInt64(mask, 16) >> (signal - 1)) & 1) != 0;
    }
}
