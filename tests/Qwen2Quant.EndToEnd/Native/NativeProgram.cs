using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Native;

/// <summary>The program as a native executable, published once for each run of the tests.</summary>
public static class NativeProgram
{
    /// <summary>Its tests run one after another: two that wait for one publication would hold up the others.</summary>
    public const string Collection = "native program";

    private static readonly string Project = System.IO.Path.Combine(Repository.Root, "src", "Qwen2Quant.Cli");
    private static readonly Lazy<bool> LazyCanRestore = new(() => Dotnet("restore", Project, "-p:Native=true", "-v:q").ExitCode == 0);

    private static readonly Lazy<string> LazyPath = new(Publish);

    /// <summary>False where the compiler's packages are out of reach.</summary>
    public static bool CanRestore => LazyCanRestore.Value;

    /// <summary>The executable; the first use publishes it.</summary>
    public static string Path => LazyPath.Value;

    public static CliCommand Command(params string[] arguments) => new(arguments) { Executable = Path };

    private static string Publish()
    {
        CliResult published = Dotnet("publish", Project, "-c", "Release", "-p:Native=true", "-v:q", "--nologo");
        published.Expect(0);
        Assert.DoesNotContain("warning", published.Output, StringComparison.OrdinalIgnoreCase);
        return Directory.GetFiles(System.IO.Path.Combine(Repository.Root, "artifacts", "native", "publish"), "qwen2quant", SearchOption.AllDirectories).Single();
    }

    /// <summary>Node reuse is off: a build server would outlive the tests and hold their output streams.</summary>
    private static CliResult Dotnet(params string[] arguments) => new CliCommand([.. arguments, "-nodeReuse:false"])
    {
        Executable = CliCommand.DotnetPath,
        WorkingDirectory = Repository.Root,
        Timeout = TimeSpan.FromMinutes(10),
        Environment = new Dictionary<string, string> { ["DOTNET_CLI_TELEMETRY_OPTOUT"] = "1", ["DOTNET_NOLOGO"] = "1", ["UseSharedCompilation"] = "false" },
    }.Run();
}
