using System.Diagnostics;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Support;

/// <summary>A fact that mounts a small file system in memory; skipped, visibly, where that is not allowed.</summary>
public sealed class MountFactAttribute : FactAttribute
{
    public MountFactAttribute()
    {
        if (!OperatingSystem.IsLinux()) Skip = "needs Linux";
        else if (!TemporaryDisk.CanMount) Skip = "needs the right to mount a file system";
    }
}

/// <summary>A file system of a chosen size.</summary>
public sealed class TemporaryDisk : IDisposable
{
    private readonly TempFolder _folder = new();

    public TemporaryDisk(long bytes)
    {
        if (Mount("-t", "tmpfs", "-o", $"size={bytes}", "tmpfs", Path) != 0) throw new InvalidOperationException("cannot mount");
    }

    public static bool CanMount { get; } = Try();

    public string Path => _folder.Path;

    /// <summary>Changes its size, or makes it read-only (<c>ro</c>).</summary>
    public void Remount(string option) => Assert.Equal(0, Mount("-o", "remount," + option, Path));

    public string File(string name) => System.IO.Path.Combine(Path, name);

    public void Dispose()
    {
        using (Process unmount = Process.Start(new ProcessStartInfo("umount", [Path]) { RedirectStandardError = true })!) unmount.WaitForExit();
        _folder.Dispose();
    }

    private static int Mount(params string[] arguments)
    {
        using Process mount = Process.Start(new ProcessStartInfo("mount", arguments) { RedirectStandardError = true })!;
        mount.WaitForExit();
        return mount.ExitCode;
    }

    private static bool Try()
    {
        try
        {
            using TemporaryDisk disk = new(65536);
            return true;
        }
        catch (Exception error) when (error is InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            return false;
        }
    }
}
