using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Quantizing;

/// <summary>Reads which method is asked for, and whether its options go together.</summary>
public static class MethodChoice
{
    public const string DefaultText = "builtin:calibration";

    /// <summary>What a method that goes layer by layer needs; null for plain rounding.</summary>
    /// <param name="scheme">The packed checkpoint that is asked for, or null.</param>
    /// <param name="load">Loads a TEXT argument.</param>
    /// <exception cref="QuantException">Usage: an option is out of range, or has no meaning for the method.</exception>
    internal static SolvingJob? Read(QuantizationChoices choices, PackedScheme? scheme, Effort effort, Func<string, EvaluationText> load, IEventSink events)
    {
        string name = choices.Method ?? scheme?.DefaultMethod ?? SolverCatalog.RoundToNearest.Name;
        SolvingMethod? method = SolvingMethod.Find(name);
        if (method is null && !name.Equals(SolverCatalog.RoundToNearest.Name, StringComparison.OrdinalIgnoreCase)) throw new QuantException(ErrorKind.Usage, "there is no such method") { Found = name, Expected = string.Join(", ", Names) };
        if (scheme is { Visits: not ColumnVisits.Natural } && method is not { Compensates: true }) throw new QuantException(ErrorKind.Usage, $"{name} visits columns in no order") { Found = scheme.ToString(), Remedy = "Leave -actorder and -descact out." };
        RequireOwn(choices, method);
        if (method is null) return null;
        double smoothing = InRange("--smoothing", choices.Smoothing ?? 0.5, 1);
        if (method.Rescaling != Rescaling.None && scheme is { Visits: ColumnVisits.PermutedGroups }) throw new QuantException(ErrorKind.Usage, $"{name} fits groups to neighbouring columns") { Found = scheme.ToString(), Remedy = "Use -actorder instead of -descact." };
        double damping = InRange("--damping", choices.Damping ?? new GptqOptions().Damping, 1);
        if (effort == Effort.Reference) throw new QuantException(ErrorKind.Usage, $"--effort reference is the path of llama.cpp's encoders, which --method {name} leaves") { Remedy = "Use --effort fast, normal or high." };
        double shrinkage = InRange("--shrinkage", choices.Shrinkage ?? new GptqOptions().Shrinkage, 10);
        if (choices.Statistics is not null && (choices.Calibration is not null || choices.AllExperts))
        {
            throw new QuantException(ErrorKind.Usage, "--statistics takes the place of --calibration and --all-experts") { Remedy = "Give one of them." };
        }

        if (choices.Statistics is not null && method.Rescaling == Rescaling.SmoothQuant) throw new QuantException(ErrorKind.Usage, "smoothquant needs the ranges of inputs, which files of Gram matrices do not have") { Remedy = "Give --calibration instead of --statistics." };
        if (choices.Calibration is null && choices.Statistics is null) ReportDefaultText(events);
        EvaluationText? text = choices.Statistics is null ? load(choices.Calibration ?? DefaultText) : null;
        GptqOptions options = GptqOptions.For(effort) with { Damping = damping, Shrinkage = shrinkage, ActivationOrder = scheme is not { Visits: ColumnVisits.Natural }, PermutesColumns = scheme is { Visits: ColumnVisits.PermutedGroups } };
        return new SolvingJob(text, choices.Statistics, Windows(choices), options, choices.AllExperts, method, smoothing);
    }

    /// <summary>True for methods that go layer by layer.</summary>
    internal static bool IsSolved(QuantizationChoices choices, PackedScheme? scheme) => Find(choices, scheme) is not null;

    /// <summary>True for methods that need more of inputs than their Gram matrices.</summary>
    internal static bool NeedsRanges(QuantizationChoices choices) => Find(choices, null) is { Rescaling: Rescaling.SmoothQuant };

    /// <summary>Which windows of a text statistics are collected on.</summary>
    internal static CalibrationOptions Windows(QuantizationChoices choices)
    {
        CalibrationOptions defaults = new();
        return new CalibrationOptions
        {
            Samples = choices.Samples ?? defaults.Samples,
            Context = choices.Context ?? defaults.Context,
            ParseSpecial = choices.ParseSpecial,
            Sampling = choices.Sampling is null ? defaults.Sampling : Enum.TryParse(choices.Sampling, ignoreCase: true, out WindowSampling sampling) && Enum.IsDefined(sampling) ? sampling
                : throw new QuantException(ErrorKind.Usage, "--sampling is none") { Found = choices.Sampling, Expected = "first or spread" },
        };
    }

    internal static void ReportDefaultText(IEventSink events) => events.Report(new QuantEvent("default-calibration", $"no --calibration was given: the text is {DefaultText}"));

    /// <summary>As <c>--method</c> takes them.</summary>
    public static IReadOnlyList<string> Names { get; } = [SolverCatalog.RoundToNearest.Name, .. SolvingMethod.All.Select(method => method.Name)];

    private static SolvingMethod? Find(QuantizationChoices choices, PackedScheme? scheme) => SolvingMethod.Find(choices.Method ?? scheme?.DefaultMethod ?? SolverCatalog.RoundToNearest.Name);

    /// <summary>Refuses options of other methods.</summary>
    private static void RequireOwn(QuantizationChoices choices, SolvingMethod? method)
    {
        List<(bool IsGiven, string Option, string Owner)> foreign = [];
        if (method is not { Compensates: true }) foreign.AddRange([(choices.Damping is not null, "--damping", GptqSolver.Name), (choices.Shrinkage is not null, "--shrinkage", GptqSolver.Name)]);
        if (method is not { Rescaling: Rescaling.SmoothQuant }) foreign.Add((choices.Smoothing is not null, "--smoothing", "smoothquant"));
        if (method is null) foreign.AddRange([(choices.AllExperts, "--all-experts", GptqSolver.Name), (choices.Statistics is not null, "--statistics", GptqSolver.Name)]);
        if (foreign.Find(option => option.IsGiven) is not { IsGiven: true } found) return;
        throw new QuantException(ErrorKind.Usage, $"{found.Option} belongs to --method {found.Owner}") { Remedy = $"Add --method {found.Owner}, or leave it out." };
    }

    private static double InRange(string option, double value, double greatest) => value >= 0 && value <= greatest ? value
        : throw new QuantException(ErrorKind.Usage, $"{option} is out of range") { Found = value.ToString(CultureInfo.InvariantCulture), Expected = $"0 to {greatest}" };
}
