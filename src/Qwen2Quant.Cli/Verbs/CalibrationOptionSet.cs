using System.CommandLine;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The options that say which windows of a text statistics are collected on.</summary>
internal sealed class CalibrationOptionSet
{
    private static readonly CalibrationOptions Defaults = new();

    private readonly Option<int> _samples = new("--samples") { Description = "Windows of the calibration text at most", HelpName = "N", DefaultValueFactory = _ => Defaults.Samples };
    private readonly Option<int> _context = new("--context") { Description = "Tokens of one window", HelpName = "N", DefaultValueFactory = _ => Defaults.Context };
    private readonly Option<string> _sampling = new("--sampling") { Description = "Which windows are taken: spread evenly over the text, or the first ones", HelpName = "spread|first", DefaultValueFactory = _ => "spread" };
    private readonly Option<bool> _parseSpecial = new("--parse-special") { Description = "Control tokens spelled out in the calibration text are tokens" };

    public CalibrationOptionSet() => _sampling.AcceptOnlyFromAmong("spread", "first");

    public void AddTo(Command command)
    {
        AddOwnTo(command);
        command.Options.Add(_context);
        command.Options.Add(_sampling);
    }

    /// <summary>Without the options that <see cref="WindowOptionSet"/> has too.</summary>
    public void AddOwnTo(Command command)
    {
        command.Options.Add(_samples);
        command.Options.Add(_parseSpecial);
    }

    public CalibrationOptions Read(Session session) => Own(session) with
    {
        Context = session.Get(_context),
        Sampling = session.Get(_sampling) == "first" ? WindowSampling.First : WindowSampling.Spread,
    };

    /// <summary>Adds what was said of the options that <see cref="WindowOptionSet"/> has not.</summary>
    public QuantizationChoices ReadOwn(Session session, QuantizationChoices choices) => choices with { Samples = session.Get(_samples), ParseSpecial = session.Get(_parseSpecial) };

    private CalibrationOptions Own(Session session) => new() { Samples = session.Get(_samples), ParseSpecial = session.Get(_parseSpecial) };
}
