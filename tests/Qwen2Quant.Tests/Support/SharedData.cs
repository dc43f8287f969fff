namespace Qwen2Quant.Tests.Support;

/// <summary>The large test data that lie beside the repository, or where <c>QWEN2QUANT_SHARED</c> says.</summary>
public static class SharedData
{
    /// <summary>The folder, or null when it is not there.</summary>
    public static string? Root { get; } = FindRoot();

    public static string Path(string relative) =>
        System.IO.Path.Combine(Root ?? throw new InvalidOperationException("the shared data are missing"), relative);

    private static string? FindRoot()
    {
        if (Environment.GetEnvironmentVariable("QWEN2QUANT_SHARED") is { Length: > 0 } given) return Directory.Exists(given) ? given : null;
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (!File.Exists(System.IO.Path.Combine(folder.FullName, "Qwen2Quant.sln"))) continue;
            string beside = System.IO.Path.GetFullPath(System.IO.Path.Combine(folder.FullName, "..", "shared"));
            return Directory.Exists(beside) ? beside : null;
        }

        return null;
    }
}

/// <summary>A test that needs the shared data and is skipped, visibly, without them.</summary>
public sealed class SharedFactAttribute : FactAttribute
{
    public SharedFactAttribute()
    {
        if (SharedData.Root is null) Skip = "the shared data are missing";
    }
}

/// <summary>A theory that needs the shared data and is skipped, visibly, without them.</summary>
public sealed class SharedTheoryAttribute : TheoryAttribute
{
    public SharedTheoryAttribute()
    {
        if (SharedData.Root is null) Skip = "the shared data are missing";
    }
}
