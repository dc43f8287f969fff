namespace Qwen2Quant.EndToEnd.Native;

/// <summary>A fact that needs the natively compiled program; skipped, visibly, on wish and where it cannot be linked.</summary>
public sealed class NativeFactAttribute : FactAttribute
{
    public NativeFactAttribute()
    {
        if (Environment.GetEnvironmentVariable("QWEN2QUANT_SKIP_NATIVE") is { Length: > 0 }) Skip = "QWEN2QUANT_SKIP_NATIVE is set";
        else if (!OperatingSystem.IsLinux()) Skip = "the native program is tested on Linux";
        else if (!NativeProgram.CanRestore) Skip = "the packages of the native compiler cannot be restored";
    }
}
