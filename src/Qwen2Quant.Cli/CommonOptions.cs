using System.CommandLine;

namespace Qwen2Quant.Cli;

/// <summary>The options that every verb takes.</summary>
internal sealed class CommonOptions
{
    public Option<bool> Json { get; } = new("--json") { Description = "Print one JSON document on standard output", Recursive = true };
    public Option<bool> Quiet { get; } = new("--quiet", "-q") { Description = "No progress and no events on standard error", Recursive = true };
    public Option<bool> Verbose { get; } = new("--verbose", "-v") { Description = "Show every event, and the stack of an internal error", Recursive = true };
    public Option<bool> NoColor { get; } = new("--no-color") { Description = "No colours (NO_COLOR and TERM=dumb do the same)", Recursive = true };

    public Option<int> Threads { get; } = new("--threads", "-t")
    {
        Description = "Number of worker threads; results do not depend on it",
        HelpName = "N",
        Recursive = true,
        DefaultValueFactory = _ => Environment.ProcessorCount,
    };

    public CommonOptions()
    {
        Threads.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, out int threads) && threads is < 1 or > 1024)
            {
                result.AddError("--threads must be between 1 and 1024");
            }
        });
    }

    public void AddTo(RootCommand root)
    {
        root.Options.Add(Json);
        root.Options.Add(Quiet);
        root.Options.Add(Verbose);
        root.Options.Add(NoColor);
        root.Options.Add(Threads);
    }
}
