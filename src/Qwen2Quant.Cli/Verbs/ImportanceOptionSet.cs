using System.CommandLine;
using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The options that say how columns of weights are weighed against one another.</summary>
internal sealed class ImportanceOptionSet
{
    private readonly Option<string?> _imatrix = new("--imatrix") { Description = "Importance matrix of llama-imatrix or calibrate, GGUF or .dat: errors in columns with large inputs weigh more", HelpName = "FILE" };
    private readonly Option<string?> _calibration = new("--calibration") { Description = "Collect the importance on a text first: " + ModelOptions.TextHelp, HelpName = "TEXT" };
    private readonly CalibrationOptionSet _windows = new();
    private readonly Option<string[]> _include = new("--include-weights") { Description = "Use only entries of the importance matrix whose names contain a text; repeatable", HelpName = "TEXT" };
    private readonly Option<string[]> _exclude = new("--exclude-weights") { Description = "Use no entry of the importance matrix whose name contains a text; repeatable", HelpName = "TEXT" };

    public void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _imatrix, _calibration, _include, _exclude }) command.Options.Add(option);
        _windows.AddOwnTo(command);
    }

    /// <summary>Reads or collects what was asked for; null when nothing was.</summary>
    /// <param name="windows">Gives the length of windows, and their sampling when that was said.</param>
    /// <param name="strict">Refuses experts that saw no tokens.</param>
    /// <param name="dryRun">Collects nothing: only what the plan needs to know is there.</param>
    public Importance? Read(Session session, Checkpoint source, WindowOptionSet windows, bool strict, bool dryRun)
    {
        string? path = session.Parsed.GetValue(_imatrix), text = session.Parsed.GetValue(_calibration);
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
