using System.Runtime.InteropServices;

namespace Qwen2Quant.Core.Running;

/// <summary>The pages of this process.</summary>
public static partial class ProcessMemory
{
    /// <summary>Gives back what earlier work left behind, and sees to it that large native blocks go back when they are freed.</summary>
    public static void Settle()
    {
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        if (!OperatingSystem.IsLinux()) return;
        try
        {
            // glibc raises this limit with every block freed, up to 32 MiB, and keeps the holes that blocks below it leave; a limit once set stays.
            const int MmapThreshold = -3, Bytes = 1 << 20;
            _ = SetAllocatorOption(MmapThreshold, Bytes);
        }
        catch (EntryPointNotFoundException)
        {
            // Another C library, which has no such limit.
        }
    }

    [LibraryImport("libc", EntryPoint = "mallopt")]
    private static partial int SetAllocatorOption(int option, int value);
}
