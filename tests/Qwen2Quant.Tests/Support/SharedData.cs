namespace Qwen2Quant.Tests.Support;

/// <summary>Large data beside the repository: <c>QWEN2QUANT_SHARED</c>, or the folder <c>shared</c> next to the one that holds the solution.</summary>
public static class SharedData
{
    /// <summary>The folder, or null when this machine does not have it.</summary>
    public static string? Root { get; } = FindRoot();

    public static string Path(string relative) => System.IO.Path.Combine(Root ?? throw new InvalidOperationException("no shared data"), relative);

    private static string? FindRoot()
    {
        if (Environment.GetEnvironmentVariable("QWEN2QUANT_SHARED") is { Length: > 0 } configured) return Directory.Exists(configured) ? configured : null;
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(System.IO.Path.Combine(folder.FullName, "Qwen2Quant.sln"))) folder = folder.Parent;
        if (folder?.Parent is null) return null;
        string shared = System.IO.Path.Combine(folder.Parent.FullName, "shared");
        return Directory.Exists(shared) ? shared : null;
    }
}

/// <summary>A fact that needs the shared data; skipped, visibly, without it.</summary>
public sealed class SharedFactAttribute : FactAttribute
{
    public SharedFactAttribute()
    {
        if (SharedData.Root is null) Skip = "needs the shared data folder (QWEN2QUANT_SHARED)";
    }
}

/// <summary>A theory that needs the shared data; skipped, visibly, without it.</summary>
public sealed class SharedTheoryAttribute : TheoryAttribute
{
    public SharedTheoryAttribute()
    {
        if (SharedData.Root is null) Skip = "needs the shared data folder (QWEN2QUANT_SHARED)";
    }
}
