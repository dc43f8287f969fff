using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>What of a text statistics are collected on.</summary>
public sealed record CalibrationOptions
{
    /// <summary>Windows at most.</summary>
    public int Samples { get; init; } = 128;

    /// <summary>Tokens of one window; all of them count.</summary>
    public int Context { get; init; } = 512;

    public WindowSampling Sampling { get; init; } = WindowSampling.Spread;

    /// <summary>Control tokens spelled out in the text are tokens.</summary>
    public bool ParseSpecial { get; init; }

    /// <summary>Only one part of the windows, in their order; null for all. The sums of all parts are those of the whole but for the order of additions.</summary>
    public Share? Partition { get; init; }

    /// <summary>Statistics of the output matrix too.</summary>
    public bool ProcessOutput { get; init; }
}

/// <summary>Collects the sums of squares of all linear inputs, as llama-imatrix does: each window in a fresh context, every position counted.</summary>
public static class DiagonalCalibration
{
    /// <returns>The statistics, and the perplexity of the same windows with the largest activations.</returns>
    /// <exception cref="QuantException">The text is too short, activations are not finite, or an option is out of range.</exception>
    public static (Imatrix Imatrix, PerplexityResult Perplexity) Collect(Checkpoint checkpoint, EvaluationText text, CalibrationOptions options, RunContext context)
    {
        DiagonalCollector collector = new(context.Threads);
        ActivationMaxima maxima = new(context.Threads);
        LoadedModel model = LoadedModel.ForWindows(checkpoint, context, new ObserverList(collector, maxima));
        WindowPlan windows = Windows(model.Tokenizer, text, options, context);
        RunOptions run = LoadedModel.Prepare([model], windows, context, DiagonalCollector.ByteCount(checkpoint.Tensors.Catalogue));
        PerplexityResult perplexity = PerplexityRun.Run(model, windows, run with { Title = "calibrating" }, context.Cancellation);
        Imatrix imatrix = new(collector.Entries(checkpoint.Tensors.Catalogue, options.ProcessOutput), [text.Name], windows.WindowCount, options.Context);
        imatrix.Check(checkpoint.Location.DisplayName);
        return (imatrix, perplexity with { Activations = maxima.Report(windows, context.Events) });
    }

    /// <summary>The largest magnitude of each linear input on the same windows.</summary>
    /// <exception cref="QuantException">As for <see cref="Collect"/>.</exception>
    public static IReadOnlyDictionary<LinearInput, float> CollectLargest(Checkpoint checkpoint, EvaluationText text, CalibrationOptions options, RunContext context)
    {
        ActivationMaxima maxima = new(context.Threads);
        LoadedModel model = LoadedModel.ForWindows(checkpoint, context, maxima);
        WindowPlan windows = Windows(model.Tokenizer, text, options, context);
        RunOptions run = LoadedModel.Prepare([model], windows, context);
        PerplexityRun.Run(model, windows, run with { Title = "calibrating" }, context.Cancellation);
        return maxima.Largest;
    }

    /// <summary>What <see cref="Collect"/> would give but for the sums and the experts' counts, at the cost of cutting the text.</summary>
    public static Imatrix Outline(Checkpoint checkpoint, EvaluationText text, CalibrationOptions options, RunContext context)
    {
        WindowPlan windows = Windows(new BpeTokenizer(checkpoint.Tokenizer), text, options, context);
        IEnumerable<ImatrixEntry> entries = new DiagonalCollector(context.Threads).Entries(checkpoint.Tensors.Catalogue, options.ProcessOutput);
        return new Imatrix([.. entries.Select(entry => entry with { Counts = [(long)windows.WindowCount * windows.Context] })], [text.Name], windows.WindowCount, options.Context);
    }

    /// <summary>The windows of a text that statistics are collected on; an event when there are fewer than asked for.</summary>
    internal static WindowPlan Windows(ITokenizer tokenizer, EvaluationText text, CalibrationOptions options, RunContext context)
    {
        if (options.Samples < 1) throw new QuantException(ErrorKind.Usage, "--samples must be at least 1") { Found = options.Samples.ToString(CultureInfo.InvariantCulture) };
        WindowPlan windows = WindowPlan.Create(
            tokenizer.Encode(text.Text, options.ParseSpecial),
            new WindowOptions { Context = options.Context, Chunks = options.Samples, Sampling = options.Sampling, BeginToken = tokenizer.LeadingId },
            text.Name);
        if (windows.WindowCount < options.Samples)
        {
            context.Events.Report(new QuantEvent("calibration-windows", string.Create(
                CultureInfo.InvariantCulture, $"{TextEscape.Escape(text.Name)}: the text has {windows.WindowCount} windows of {options.Context} tokens, fewer than the {options.Samples} asked for; all are used")));
        }

        return options.Partition is { } part ? windows.Part(part.Index, part.Count) : windows;
    }
}
