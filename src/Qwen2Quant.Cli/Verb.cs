using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;

namespace Qwen2Quant.Cli;

/// <summary>A verb of the command line with the examples that its help ends with.</summary>
internal sealed class Verb(string name, string description, params string[] examples) : Command(name, description)
{
    public IReadOnlyList<string> Examples { get; } = examples;
}

/// <summary>The standard help followed by examples.</summary>
internal sealed class HelpWithExamples(SynchronousCommandLineAction standard, IReadOnlyList<string> rootExamples) : SynchronousCommandLineAction
{
    /// <summary>Help is given also where the rest of the command line is incomplete.</summary>
    public override bool ClearsParseErrors => true;

    public static void Replace(RootCommand root, params string[] rootExamples)
    {
        HelpOption help = root.Options.OfType<HelpOption>().Single();
        help.Action = new HelpWithExamples((SynchronousCommandLineAction)help.Action!, rootExamples);
    }

    public override int Invoke(ParseResult parseResult)
    {
        int code = standard.Invoke(parseResult);
        TextWriter output = parseResult.InvocationConfiguration.Output;
        output.WriteLine("Examples:");
        foreach (string line in parseResult.CommandResult.Command is Verb verb ? verb.Examples : rootExamples) output.WriteLine("  qwen2quant " + line);
        return code;
    }
}
