using System.CommandLine;
using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

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
    private readonly Option<bool> _resume = new("--resume") { Description = "gptq, awq: go on at the layer where an interrupted run with the same options ended" };
    private readonly Option<string[]> _include = new("--include-weights") { Description = "Use only entries of the importance matrix whose names contain a text; repeatable", HelpName = "TEXT" };
    private readonly Option<string[]> _exclude = new("--exclude-weights") { Description = "Use no entry of the importance matrix whose name contains a text; repeatable", HelpName = "TEXT" };

    private static string MethodNames => string.Join('|', [SolverCatalog.RoundToNearest.Name, .. SolvingMethod.All.Select(method => method.Name)]);

    public void AddTo(Command command)
    {
        _method.AcceptOnlyFromAmong(MethodNames.Split('|'));
        foreach (Option option in new Option[] { _method, _imatrix, _calibration, _include, _exclude, _damping, _shrinkage, _smoothing, _allExperts, _statistics, _resume }) command.Options.Add(option);
        _windows.AddOwnTo(command);
    }

    /// <summary>Reads or collects what was asked for; null when nothing was.</summary>
    /// <param name="windows">Gives the length of windows, and their sampling when that was said.</param>
    /// <param name="strict">Refuses experts that saw no tokens.</param>
    /// <param name="dryRun">Collects nothing: only what the plan needs to know is there.</param>
    public Importance? Read(Session session, bool isSolved, Checkpoint source, WindowOptionSet windows, bool strict, bool dryRun)
    {
        // What other methods collect is more, and collected on its way.
        string? path = session.Parsed.GetValue(_imatrix), text = isSolved ? null : session.Parsed.GetValue(_calibration);
        ImportanceFilter filter = new(session.Get(_include) ?? [], session.Get(_exclude) ?? []);
        if (path is not null && text is not null) throw new QuantException(ErrorKind.Usage, "--imatrix and --calibration exclude one another");
        if (filter is { Include.Count: > 0, Exclude.Count: > 0 }) throw new QuantException(ErrorKind.Usage, "--include-weights and --exclude-weights exclude one another");
        if (path is null && text is null)
        {
            if (filter.Include.Count == 0 && filter.Exclude.Count == 0) return null;
            throw new QuantException(ErrorKind.Usage, "--include-weights and --exclude-weights choose among the entries of an importance matrix") { Remedy = "Add --imatrix FILE." };
        }

        Imatrix imatrix = path is null ? Collect(session, source, text!, windows, dryRun) : ImatrixReader.Read(session.Context.Files, path, session.Context.ReadOptions);
        return Importance.Create(imatrix, source.Tensors.Catalogue, path, filter, strict, session.Context);
    }

    /// <summary>What a method that goes layer by layer needs; null for plain rounding.</summary>
    /// <exception cref="QuantException">Usage: an option is out of range, or has no meaning for the method.</exception>
    /// <param name="scheme">The packed checkpoint that is asked for, or null.</param>
    public SolvingJob? ReadSolving(Session session, PackedScheme? scheme, WindowOptionSet windows, Effort effort)
    {
        string name = session.Parsed.GetValue(_method) ?? scheme?.DefaultMethod ?? SolverCatalog.RoundToNearest.Name;
        SolvingMethod? method = SolvingMethod.Find(name);
        if (scheme is { Visits: not ColumnVisits.Natural } && method is not { Compensates: true }) throw new QuantException(ErrorKind.Usage, $"{name} visits columns in no order") { Found = scheme.ToString(), Remedy = "Leave -actorder and -descact out." };
        List<(Option Option, string Owner)> foreign = [];
        if (method is not { Compensates: true }) foreign.AddRange([(_damping, GptqSolver.Name), (_shrinkage, GptqSolver.Name)]);
        if (method is not { Rescaling: Rescaling.SmoothQuant }) foreign.Add((_smoothing, "smoothquant"));
        if (method is null) foreign.AddRange([(_allExperts, GptqSolver.Name), (_statistics, GptqSolver.Name), (_resume, GptqSolver.Name)]);
        if (foreign.Find(pair => session.Parsed.GetResult(pair.Option) is { Implicit: false }) is { Option: not null } found)
        {
            throw new QuantException(ErrorKind.Usage, $"{found.Option.Name} belongs to --method {found.Owner}") { Remedy = $"Add --method {found.Owner}, or leave it out." };
        }

        if (method is null) return null;
        double smoothing = session.Get(_smoothing);
        if (!(smoothing is >= 0 and <= 1)) throw new QuantException(ErrorKind.Usage, "--smoothing is out of range") { Found = smoothing.ToString(CultureInfo.InvariantCulture), Expected = "0 to 1" };
        if (method.Rescaling != Rescaling.None && scheme is { Visits: ColumnVisits.PermutedGroups }) throw new QuantException(ErrorKind.Usage, $"{name} fits groups to neighbouring columns") { Found = scheme.ToString(), Remedy = "Use -actorder instead of -descact." };
        double damping = session.Get(_damping);
        if (!(damping >= 0 && damping <= 1)) throw new QuantException(ErrorKind.Usage, "--damping is out of range") { Found = damping.ToString(CultureInfo.InvariantCulture), Expected = "0 to 1" };
        if (effort == Effort.Reference) throw new QuantException(ErrorKind.Usage, $"--effort reference is the path of llama.cpp's encoders, which --method {name} leaves") { Remedy = "Use --effort fast, normal or high." };
        double shrinkage = session.Get(_shrinkage);
        if (!(shrinkage >= 0 && shrinkage <= 10)) throw new QuantException(ErrorKind.Usage, "--shrinkage is out of range") { Found = shrinkage.ToString(CultureInfo.InvariantCulture), Expected = "0 to 10" };
        string? argument = session.Parsed.GetValue(_calibration);
        string? statistics = session.Parsed.GetValue(_statistics);
        if (statistics is not null && (argument is not null || session.Get(_allExperts)))
        {
            throw new QuantException(ErrorKind.Usage, "--statistics takes the place of --calibration and --all-experts") { Remedy = "Give one of them." };
        }

        if (statistics is not null && method.Rescaling == Rescaling.SmoothQuant) throw new QuantException(ErrorKind.Usage, "smoothquant needs the ranges of inputs, which files of Gram matrices do not have") { Remedy = "Give --calibration instead of --statistics." };
        if (argument is null && statistics is null) session.Context.Events.Report(new QuantEvent("default-calibration", "no --calibration was given: the text is builtin:calibration"));
        EvaluationText? text = statistics is null ? EvaluationText.Load(session.Context.Files, argument ?? "builtin:calibration", Console.OpenStandardInput()) : null;
        return new SolvingJob(text, statistics, _windows.Read(session, windows), GptqOptions.For(effort) with { Damping = damping, Shrinkage = shrinkage, ActivationOrder = scheme is not { Visits: ColumnVisits.Natural }, PermutesColumns = scheme is { Visits: ColumnVisits.PermutedGroups } }, session.Get(_allExperts), session.Get(_resume), method, smoothing);
    }

    /// <summary>The largest inputs on the calibration text, for schemes that store scales of inputs; null for others.</summary>
    /// <exception cref="QuantException">Usage: the method changes inputs after they are looked at.</exception>
    public IReadOnlyDictionary<LinearInput, float>? ReadLargestInputs(Session session, PackedScheme? scheme, SolvingJob? job, Checkpoint source, WindowOptionSet windows, bool dryRun)
    {
        if (scheme is not { NeedsInputs: true }) return null;
        if (job is { Method.Rescaling: not Rescaling.None }) throw new QuantException(ErrorKind.Usage, $"{job.Method.Name} rescales inputs, whose scales {scheme} stores") { Remedy = "Use --method rtn or gptq, or a scheme with dynamic activations." };
        if (dryRun) return new Dictionary<LinearInput, float>(source.Tensors.Catalogue.Tensors.Select(LinearInput.Of).OfType<LinearInput>().Distinct().Select(input => KeyValuePair.Create(input, 1f)));
        string? argument = session.Parsed.GetValue(_calibration);
        if (argument is null && job is null) session.Context.Events.Report(new QuantEvent("default-calibration", "no --calibration was given: the text is builtin:calibration"));
        return DiagonalCalibration.CollectLargest(source, EvaluationText.Load(session.Context.Files, argument ?? "builtin:calibration", Console.OpenStandardInput()), _windows.Read(session, windows), session.Context);
    }

    private Imatrix Collect(Session session, Checkpoint source, string argument, WindowOptionSet windows, bool dryRun)
    {
        EvaluationText text = EvaluationText.Load(session.Context.Files, argument, Console.OpenStandardInput());
        CalibrationOptions options = _windows.Read(session, windows);
        if (dryRun) return DiagonalCalibration.Outline(source, text, options, session.Context);
        (Imatrix imatrix, PerplexityResult perplexity) = DiagonalCalibration.Collect(source, text, options, session.Context);
        session.Context.Events.Report(new QuantEvent("calibrated", string.Create(
            CultureInfo.InvariantCulture,
            $"importance collected on {perplexity.Chunks} windows of {perplexity.Context} tokens of {TextEscape.Escape(text.Name)}, perplexity {perplexity.Perplexity:0.0000}; `calibrate` keeps it in a file")));
        return imatrix;
    }
}
