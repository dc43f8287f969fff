using System.CommandLine;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The options that say how columns of weights are weighed against one another.</summary>
internal sealed class ImportanceOptionSet
{
    private readonly Option<string?> _imatrix = new("--imatrix") { Description = "Importance matrix of llama-imatrix or calibrate, GGUF or .dat: errors in columns with large inputs weigh more", HelpName = "FILE" };
    private readonly Option<string?> _calibration = new("--calibration") { Description = "Collect the importance on a text first: " + ModelOptions.TextHelp, HelpName = "TEXT" };
    private readonly CalibrationOptionSet _windows = new();
    private readonly Option<string?> _method = new("--method")
    {
        Description = "How codes are chosen: each by itself (rtn), or so that they make up for one another's errors on a calibration text (gptq); awq and smoothquant first rescale channels with large inputs, and then round or, with +gptq, go on so [default: what the scheme implies, else rtn]",
        HelpName = MethodNames,
    };
    private readonly Option<double> _damping = new("--damping") { Description = "gptq: what is added to the Hessian's diagonal, as a share of its mean", HelpName = "SHARE", DefaultValueFactory = _ => new GptqOptions().Damping };
    private readonly Option<double> _shrinkage = new("--shrinkage") { Description = "gptq: what is added to each element of the Hessian's diagonal, as a share of it", HelpName = "SHARE", DefaultValueFactory = _ => new GptqOptions().Shrinkage };
    private readonly Option<double> _smoothing = new("--smoothing") { Description = "smoothquant: the exponent of the activations; 0.5 weighs both sides alike, 0.8 is usual for W8A8", HelpName = "EXPONENT", DefaultValueFactory = _ => 0.5 };
    private readonly Option<bool> _allExperts = new("--all-experts") { Description = "gptq, awq: show every token to every expert of a mixture" };
    private readonly Option<string?> _statistics = new("--statistics") { Description = "gptq, awq: Gram matrices that `calibrate --depth gram` made of the model as it is; each matrix is then solved by itself", HelpName = "FILE" };
    private readonly Option<string[]> _include = new("--include-weights") { Description = "Use only entries of the importance matrix whose names contain a text; repeatable", HelpName = "TEXT" };
    private readonly Option<string[]> _exclude = new("--exclude-weights") { Description = "Use no entry of the importance matrix whose name contains a text; repeatable", HelpName = "TEXT" };

    private static string MethodNames => string.Join('|', MethodChoice.Names);

    public void AddTo(Command command)
    {
        _method.AcceptOnlyFromAmong(MethodNames.Split('|'));
        foreach (Option option in new Option[] { _method, _imatrix, _calibration, _include, _exclude, _damping, _shrinkage, _smoothing, _allExperts, _statistics }) command.Options.Add(option);
        _windows.AddOwnTo(command);
    }

    /// <summary>Adds what was said.</summary>
    /// <param name="windows">Gives the length of windows, and their sampling when that was said.</param>
    public QuantizationChoices Read(Session session, WindowOptionSet windows, QuantizationChoices choices)
    {
        choices = choices with
        {
            Method = session.Parsed.GetValue(_method),
            Imatrix = session.Parsed.GetValue(_imatrix),
            Calibration = session.Parsed.GetValue(_calibration),
            Statistics = session.Parsed.GetValue(_statistics),
            IncludeWeights = session.Get(_include) ?? [],
            ExcludeWeights = session.Get(_exclude) ?? [],
            Damping = session.GetGiven(_damping),
            Shrinkage = session.GetGiven(_shrinkage),
            Smoothing = session.GetGiven(_smoothing),
            AllExperts = session.Get(_allExperts),
            Sampling = windows.ExplicitSampling(session)?.ToString(),
        };
        return _windows.ReadOwn(session, choices) with { Context = windows.Context(session) };
    }
}
