using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Cli.Verbs;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli;

/// <summary>One invocation of a verb: what was parsed, where to print, and the context that the work runs in.</summary>
internal sealed class Session(ParseResult parsed, CommonOptions options, TextWriter output, TextWriter error, bool errorRedirected, Interruption interruption)
{
    public ParseResult Parsed { get; } = parsed;
    public Interruption Interruption { get; } = interruption;
    public TextWriter Out { get; } = output;
    public TextWriter Error { get; } = error;
    public bool Json { get; } = parsed.GetValue(options.Json);
    public bool Quiet { get; } = parsed.GetValue(options.Quiet);
    public bool Verbose { get; } = parsed.GetValue(options.Verbose);

    public bool UseColor { get; } = !parsed.GetValue(options.NoColor)
        && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"))
        && Environment.GetEnvironmentVariable("TERM") != "dumb";

    public RunContext Context => _context ??= new RunContext
    {
        Threads = Parsed.GetValue(options.Threads),
        Cancellation = Interruption.Token,
        MemoryBytes = Parsed.GetValue(ModelOptions.Memory) is { } memory ? Sizes.Parse(memory, "--memory") : MemoryPlan.DefaultBytes,
        Exact = Parsed.GetValue(ModelOptions.Exact),
        Progress = Quiet ? NoProgress.Instance : ProgressDisplay.Create(Error, errorRedirected, UseColor),
    };

    private RunContext? _context;
    private int _eventsShown;

    public T Get<T>(Option<T> option) => Parsed.GetValue(option)!;

    /// <summary>The value of an option that was given; null when its default stands.</summary>
    public T? GetGiven<T>(Option<T> option) where T : struct => Parsed.GetResult(option) is { Implicit: false } ? Parsed.GetValue(option) : null;

    public T Get<T>(Argument<T> argument) => Parsed.GetValue(argument)!;

    /// <summary>Prints the events since the last call: substitutions always, the rest too unless quiet.</summary>
    public void ShowEvents()
    {
        if (_context is null || Quiet) return;
        IReadOnlyList<QuantEvent> events = _context.Events.Events;
        foreach (IGrouping<string, QuantEvent> group in events.Skip(_eventsShown).GroupBy(quantEvent => quantEvent.Code))
        {
            const int shown = 3;
            IEnumerable<QuantEvent> some = Verbose ? group : group.Take(shown);
            foreach (QuantEvent quantEvent in some) Error.WriteLine($"{(quantEvent.IsSubstitution || quantEvent.IsWarning ? "warning" : "note")}: {quantEvent.Message}");
            if (!Verbose && group.Count() > shown) Error.WriteLine($"  … and {group.Count() - shown} more like this (--verbose shows all)");
        }

        _eventsShown = events.Count;
    }

    /// <summary>Prints one result: the JSON document, or the text.</summary>
    public void Print<T>(T document, JsonTypeInfo<T> type, Action<TextWriter> text)
    {
        ShowEvents();
        if (Json) Out.WriteLine(JsonSerializer.Serialize(document, type));
        else text(Out);
    }
}
