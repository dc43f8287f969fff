using System.CommandLine;
using System.CommandLine.Parsing;
using Qwen2Quant.Cli.Verbs;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Cli;

/// <summary>Parses the command line, runs a verb, and turns whatever happens into an exit code.</summary>
internal static class CommandLineHost
{
    public static int Run(string[] args, TextWriter output, TextWriter error, bool errorRedirected)
    {
        CommonOptions options = new();
        RootCommand root = new("Converts, quantizes and checks Qwen2 models.");
        options.AddTo(root);
        using Interruption interruption = new();
        Host host = new(options, output, error, errorRedirected, interruption);
        foreach (Func<VerbRunner, Command> create in VerbCatalog.All) root.Subcommands.Add(create(host.Run));
        HelpWithExamples.Replace(
            root,
            "quantize Qwen/Qwen2-0.5B-Instruct --to gguf:Q8_0 --out qwen2-0.5b-Q8_0.gguf --validate builtin:text",
            "quantize builtin:tiny --to gguf:Q4_0 --out tiny-Q4_0.gguf --validate builtin:text");

        ParseResult parsed = root.Parse(args);
        InvocationConfiguration configuration = new()
        {
            Output = output,
            Error = error,
            EnableDefaultExceptionHandler = false,
            ProcessTerminationTimeout = null,
        };
        return parsed.Errors.Count > 0 ? Refuse(parsed, root, error) : parsed.Invoke(configuration);
    }

    /// <summary>Says what is wrong with the command line, on standard error alone: scripts read standard output.</summary>
    private static int Refuse(ParseResult parsed, RootCommand root, TextWriter error)
    {
        foreach (ParseError wrong in parsed.Errors) error.WriteLine($"error: {TextEscape.Escape(wrong.Message)}");
        Command command = parsed.CommandResult.Command;
        if (command == root) error.WriteLine($"The commands are {string.Join(", ", root.Subcommands.Select(known => known.Name))}.");
        string path = string.Concat(Path(command).Select(part => part.Name + " "));
        error.WriteLine($"qwen2quant {path}--help shows how it is used.");
        return ExitCodes.Usage;
    }

    /// <summary>The commands from the root on, without it.</summary>
    private static IEnumerable<Command> Path(Command command) =>
        command.Parents.OfType<Command>().FirstOrDefault() is { } parent ? [.. Path(parent), command] : [];

    private sealed class Host(CommonOptions options, TextWriter output, TextWriter error, bool errorRedirected, Interruption interruption)
    {
        public int Run(ParseResult parsed, Func<Session, int> verb)
        {
            Session session = new(parsed, options, output, error, errorRedirected, interruption);
            try
            {
                int code = verb(session);
                session.ShowEvents();
                return code;
            }
            catch (QuantException failure)
            {
                session.ShowEvents();
                error.WriteLine($"error: {failure.Message}");
                return ExitCodes.Of(failure.Kind);
            }
            catch (OperationCanceledException) when (interruption.Signal is { } signal)
            {
                session.ShowEvents();
                error.WriteLine("interrupted: nothing was published");
                return ExitCodes.SignalBase + signal;
            }
            catch (OutOfMemoryException)
            {
                error.WriteLine("error: out of memory");
                return ExitCodes.Resource;
            }
            catch (Exception failure)
            {
                error.WriteLine($"internal error: {TextEscape.Escape(failure.Message)}");
                if (session.Verbose) error.WriteLine(failure);
                else error.WriteLine("--verbose shows where; please report it.");
                return ExitCodes.InternalError;
            }
        }
    }
}
