namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>A fact that needs a Slurm cluster of its own; skipped, visibly, where one cannot be started.</summary>
public sealed class SlurmFactAttribute : FactAttribute
{
    private static readonly string[] Programs = ["munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue"];

    public SlurmFactAttribute()
    {
        if (!OperatingSystem.IsLinux()) Skip = "needs Linux, for slurmd";
        else if (Array.Find(Programs, name => Find(name) is null) is { } missing) Skip = $"needs Slurm and MUNGE: {missing} is not installed";
        else if (!Environment.IsPrivilegedProcess) Skip = "needs to run as root, as slurmd does";
    }

    /// <summary>The path of an installed program; daemons may lie where only root's search path leads.</summary>
    public static string? Find(string name) =>
        $"{Environment.GetEnvironmentVariable("PATH")}:/usr/sbin:/sbin".Split(':', StringSplitOptions.RemoveEmptyEntries).Select(folder => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
}
