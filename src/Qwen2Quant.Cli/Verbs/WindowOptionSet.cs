using System.CommandLine;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The options that say which windows of a text are measured.</summary>
internal sealed class WindowOptionSet
{
    private readonly int? _defaultChunks;
    private readonly Option<int> _context = new("--context") { Description = "Tokens of one window", HelpName = "N", DefaultValueFactory = _ => 512 };
    private readonly Option<int?> _chunks;

    private readonly Option<string> _protocol = Choice(
        "--protocol",
        "llama scores the second half of each window, as llama-perplexity does; full every position but the first",
        "llama",
        "full");

    private readonly Option<string> _sampling = Choice("--sampling", "Which windows --chunks takes: the first ones, or spread evenly over the text", "first", "spread");

    /// <param name="defaultChunks">Windows taken when <c>--chunks</c> is not given; null for all.</param>
    public WindowOptionSet(int? defaultChunks = null)
    {
        _defaultChunks = defaultChunks;
        _chunks = new("--chunks") { Description = $"Windows at most [default: {(defaultChunks is { } count ? $"{count}" : "all")}]", HelpName = "N" };
    }

    public void AddTo(Command command)
    {
        command.Options.Add(_context);
        command.Options.Add(_chunks);
        command.Options.Add(_protocol);
        command.Options.Add(_sampling);
    }

    /// <summary>Tokens of one window.</summary>
    public int Context(Session session) => session.Get(_context);

    /// <summary>What <c>--sampling</c> says; null when it is not given.</summary>
    public WindowSampling? ExplicitSampling(Session session) => session.Parsed.GetResult(_sampling) is { Implicit: false } ? Sampling(session) : null;

    /// <summary>The name of an option that was given, or null when none was.</summary>
    public string? FirstGiven(Session session) =>
        new Option[] { _context, _chunks, _protocol, _sampling }.FirstOrDefault(option => session.Parsed.GetResult(option) is { Implicit: false })?.Name;

    /// <summary>As <see cref="Read(Session)"/>, with a context of its own unless <c>--context</c> is given.</summary>
    public WindowOptions Read(Session session, int defaultContext) =>
        session.Parsed.GetResult(_context) is { Implicit: false } ? Read(session) : Read(session) with { Context = defaultContext };

    public WindowOptions Read(Session session) => new()
    {
        Context = session.Get(_context),
        Chunks = session.Parsed.GetValue(_chunks) ?? _defaultChunks,
        Protocol = session.Get(_protocol) == "full" ? ScoringProtocol.Full : ScoringProtocol.Llama,
        Sampling = Sampling(session),
    };

    private WindowSampling Sampling(Session session) => session.Get(_sampling) == "spread" ? WindowSampling.Spread : WindowSampling.First;

    private static Option<string> Choice(string name, string description, params string[] values)
    {
        Option<string> option = new(name) { Description = description, HelpName = string.Join('|', values), DefaultValueFactory = _ => values[0] };
        option.AcceptOnlyFromAmong(values);
        return option;
    }
}
