using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Quantizing;

/// <summary>How a run may go about its output.</summary>
/// <param name="Force">Replaces an existing output.</param>
/// <param name="Resume">Goes on with what a run with equal settings left; leaves alone what one finished.</param>
/// <param name="Name">What the report calls the output, where it is on its way to another place; null for its path.</param>
public readonly record struct OutputHandling(bool Force = false, bool Resume = false, bool DryRun = false, string? Name = null);

/// <summary>One model and one scheme: opened, checked and planned; statistics are collected when it runs.</summary>
public sealed class QuantizationRequest : IDisposable
{
    private const string ImportanceFile = "importance.gguf", LargestFile = "largest-inputs.json";

    private readonly QuantizationChoices _choices;
    private readonly SchemeChoice _scheme;
    private readonly EvaluationText? _text;
    private readonly RunContext _context;

    private QuantizationRequest(Checkpoint source, SchemeChoice scheme, QuantizationChoices choices, Effort effort, SolvingJob? solving, EvaluationText? text, string target, OutputHandling handling, RunContext context)
    {
        Source = source;
        _scheme = scheme;
        _choices = choices;
        _context = context;
        _text = text;
        long maxShardBytes = choices.MaxShardSize is { } size ? Sizes.Parse(size, "--max-shard-size") : SafetensorsPlan.DefaultShardBytes;
        QuantizationOptions options = scheme.Options(choices) with { IsSolved = solving is not null, Damping = solving?.Options.Damping ?? 0.01 };
        Importance? given = choices.Imatrix is null ? null : CreateImportance(ImatrixReader.Read(context.Files, choices.Imatrix, context.ReadOptions), choices.ImatrixName ?? choices.Imatrix, choices.Strict);
        bool needsInputs = scheme.Packed is { NeedsInputs: true };
        Plan = !needsInputs && (text is null || solving is not null)
            ? Of(options with { Importance = given }) with { Statistics = given?.Identity ?? "none" }
            : Of(options with { Importance = Outlined(solving, given), LargestInputs = needsInputs ? AllInputs.ToDictionary(input => input, _ => 1f) : null }) with
            {
                Statistics = RunSettings.Hash($"{given?.Identity} {text!.Text} {MethodChoice.Windows(choices)} {context.Exact} {string.Join('|', choices.IncludeWeights)} {string.Join('|', choices.ExcludeWeights)}"),
                Complete = folder => Of(options with { Importance = solving is null && given is null && choices.Calibration is not null ? Collected(folder) : given, LargestInputs = needsInputs ? Largest(folder) : null }),
            };
        Conversion = new Conversion(source, Plan, new ConversionOptions(scheme.Name, handling.Force, choices.Strict, handling.DryRun, effort, solving, handling.Resume, handling.Name), context);

        ConversionPlan Of(QuantizationOptions asked) => scheme.Packed is { } packed
            ? PackedPlanner.Plan(source, packed, asked, target, maxShardBytes, context)
            : GgufPlanner.PlanQuantization(source, scheme.Recipe!, asked, target, context);
    }

    public Checkpoint Source { get; }

    /// <summary>All that is known before statistics are collected.</summary>
    public ConversionPlan Plan { get; }

    public Conversion Conversion { get; }

    private LinearInput[] AllInputs => [.. Source.Tensors.Catalogue.Tensors.Select(LinearInput.Of).OfType<LinearInput>().Distinct()];

    /// <summary>Opens a model and plans an output.</summary>
    /// <param name="standardInput">What the TEXT argument <c>-</c> reads.</param>
    /// <exception cref="QuantException">The model, an option or the target is refused.</exception>
    public static QuantizationRequest Open(string model, string scheme, string target, QuantizationChoices choices, OutputHandling handling, RunContext context, Stream standardInput)
    {
        if (choices.Exact) context = context with { Exact = true };
        SchemeChoice chosen = SchemeChoice.Read(scheme, choices, context);
        Effort effort = choices.ReadEffort();
        if (choices.IncludeWeights.Count > 0 && choices.ExcludeWeights.Count > 0) throw new QuantException(ErrorKind.Usage, "--include-weights and --exclude-weights exclude one another");
        SolvingJob? solving = MethodChoice.Read(choices, chosen.Packed, effort, Load, context.Events);
        if (choices.Imatrix is not null && choices.Calibration is not null && solving is null) throw new QuantException(ErrorKind.Usage, "--imatrix and --calibration exclude one another");
        if ((choices.IncludeWeights.Count > 0 || choices.ExcludeWeights.Count > 0) && choices.Imatrix is null && (choices.Calibration is null || solving is not null))
        {
            throw new QuantException(ErrorKind.Usage, "--include-weights and --exclude-weights choose among the entries of an importance matrix") { Remedy = "Add --imatrix FILE." };
        }

        bool needsInputs = chosen.Packed is { NeedsInputs: true };
        if (needsInputs && solving is { Method.Rescaling: not Rescaling.None }) throw new QuantException(ErrorKind.Usage, $"{solving.Method.Name} rescales inputs, whose scales {chosen.Name} stores") { Remedy = "Use --method rtn or gptq, or a scheme with dynamic activations." };
        if (needsInputs && solving is null && choices.Calibration is null) MethodChoice.ReportDefaultText(context.Events);
        EvaluationText? text = solving?.Text ?? (needsInputs || choices.Calibration is not null ? Load(choices.Calibration ?? MethodChoice.DefaultText) : null);
        Checkpoint source = Checkpoint.Open(model, context);
        try
        {
            return new QuantizationRequest(source, chosen, choices, effort, solving, text, target, handling, context);
        }
        catch
        {
            source.Dispose();
            throw;
        }

        EvaluationText Load(string argument) => EvaluationText.Load(context.Files, argument, standardInput);
    }

    /// <summary>Runs it, with what goes beside the output.</summary>
    public ConversionReport Run()
    {
        ConversionReport report = Conversion.Run();
        if (_choices.Modelfile && !report.DryRun)
        {
            PendingOutput.PublishSmallFile(_context.Files, Plan.Target + ".Modelfile", Modelfile.Write(Path.GetFileName(Plan.Target), new BpeTokenizer(Source.Tokenizer)));
        }

        return report;
    }

    /// <summary>Measures the published output against its source, and keeps what was found in its report; what was measured before on the same text is taken from there.</summary>
    public ConversionReport Prove(ConversionReport report, EvaluationText text, WindowOptions windows)
    {
        string measured = RunSettings.Hash($"{text.Text} {windows} {_context.Exact}");
        if (report.Validation is not null && report.ValidatedOn == measured) return report;
        using Checkpoint published = Checkpoint.Open(Plan.Target, _context);
        report = report with { Validation = Proof.Compare(Source, published, text, windows, _context), ValidatedOn = measured };
        Conversion.WriteMeasurement(report, text.Name);
        return report;
    }

    public void Dispose()
    {
        Conversion.Dispose();
        Source.Dispose();
    }

    private Importance? Outlined(SolvingJob? solving, Importance? given) => solving is not null || given is not null || _choices.Calibration is null
        ? given
        : CreateImportance(DiagonalCalibration.Outline(Source, _text!, MethodChoice.Windows(_choices), _context), null, strict: false);

    private Importance CreateImportance(Imatrix imatrix, string? path, bool strict) =>
        Importance.Create(imatrix, Source.Tensors.Catalogue, path, new ImportanceFilter(_choices.IncludeWeights, _choices.ExcludeWeights), strict, _context);

    /// <summary>The importance on the text, from the folder when an earlier run collected it.</summary>
    private Importance Collected(string folder)
    {
        string path = Path.Combine(folder, ImportanceFile);
        if (_context.Files.FileExists(path)) return CreateImportance(ImatrixReader.Read(_context.Files, path, _context.ReadOptions), null, _choices.Strict);
        (Imatrix imatrix, PerplexityResult perplexity) = DiagonalCalibration.Collect(Source, _text!, MethodChoice.Windows(_choices), _context);
        _context.Events.Report(new QuantEvent("calibrated", string.Create(
            CultureInfo.InvariantCulture,
            $"importance collected on {perplexity.Chunks} windows of {perplexity.Context} tokens of {TextEscape.Escape(_text!.Name)}, perplexity {perplexity.Perplexity:0.0000}; `calibrate` keeps it in a file")));
        PendingOutput.WriteSmallFile(_context.Files, path, ImatrixWriter.Write(imatrix, ImatrixFormat.Gguf, ImportanceFile));
        return CreateImportance(imatrix, null, _choices.Strict);
    }

    /// <summary>The largest inputs on the text, from the folder when an earlier run collected them.</summary>
    private Dictionary<LinearInput, float> Largest(string folder)
    {
        string path = Path.Combine(folder, LargestFile);
        LinearInput[] inputs = AllInputs;
        if (_context.Files.FileExists(path) && JsonSerializer.Deserialize(_context.Files.ReadAllBytes(path, _context.Limits.JsonFileBytes), LargestJson.Default.SingleArray) is { } kept && kept.Length == inputs.Length)
        {
            return ByInput(kept);
        }

        IReadOnlyDictionary<LinearInput, float> largest = DiagonalCalibration.CollectLargest(Source, _text!, MethodChoice.Windows(_choices), _context);
        float[] values = [.. inputs.Select(input => largest.GetValueOrDefault(input))];
        PendingOutput.WriteSmallFile(_context.Files, path, JsonSerializer.SerializeToUtf8Bytes(values, LargestJson.Default.SingleArray));
        return ByInput(values);

        // An input that no token reached has no entry.
        Dictionary<LinearInput, float> ByInput(float[] magnitudes) => inputs.Zip(magnitudes).Where(pair => pair.Second > 0).ToDictionary(pair => pair.First, pair => pair.Second);
    }
}

[JsonSerializable(typeof(float[]))]
internal sealed partial class LargestJson : JsonSerializerContext;
