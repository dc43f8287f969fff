using System.Diagnostics;
using System.Reflection;
using System.Text.Json;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>How a conversion may go about its output.</summary>
/// <param name="Force">Replaces an existing output.</param>
/// <param name="Strict">Refuses a plan with substitutions.</param>
/// <param name="DryRun">Plans and checks only.</param>
/// <param name="Effort">How hard encoders look for a small error.</param>
/// <param name="Solving">Goes layer by layer over a calibration text; null rounds each value by itself.</param>
public sealed record ConversionOptions(string Scheme, bool Force = false, bool Strict = false, bool DryRun = false, Effort Effort = Effort.Normal, SolvingJob? Solving = null)
{
    /// <summary>As <c>--method</c> spells it.</summary>
    public string Method => Solving?.Method.Name ?? SolverCatalog.RoundToNearest.Name;
}

/// <summary>Runs a planned conversion from the opened source to the published, verified output.</summary>
public sealed class Conversion(Checkpoint source, ConversionPlan plan, ConversionOptions options, RunContext context)
{
    private readonly Stopwatch _watch = Stopwatch.StartNew();
    private SolvedTensors? _solved;
    private double _solvedAt;
    private ConversionPlan? _written;

    /// <summary>Version of this program, as outputs and reports name it.</summary>
    public static string Version { get; } =
        typeof(Conversion).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];

    /// <summary>Path of the report of an output.</summary>
    public static string ReportPath(ConversionPlan plan) =>
        plan.IsFolder ? Path.Combine(plan.Target, "qwen2quant.json") : plan.Target + ".qwen2quant.json";

    /// <exception cref="QuantException">The plan is refused, the source is bad, the disk fails, or the output does not verify; nothing is then published.</exception>
    public ConversionReport Run()
    {
        foreach (QuantEvent planned in plan.Events) context.Events.Report(planned);
        if (options.Strict && plan.Events.FirstOrDefault(planned => planned.IsSubstitution) is { } substitution)
        {
            throw new QuantException(ErrorKind.Substitution, $"--strict refuses {plan.Events.Count(planned => planned.IsSubstitution)} substitution(s), the first: {substitution.Message}")
            {
                Path = plan.Target,
            };
        }

        if (plan.Obstacle is { } obstacle)
        {
            if (!options.DryRun) throw obstacle;
            context.Events.Report(new QuantEvent("cannot-run", $"without --dry-run this would be refused: {obstacle.Message}", obstacle.Tensor));
        }

        string[] inputs = [.. InputPaths()];
        foreach (string target in plan.Kind == OutputKind.Parts ? plan.Files.Select(file => Path.Combine(Path.GetDirectoryName(plan.Target) ?? "", file.Name)) : [plan.Target])
        {
            PendingOutput.CheckTarget(context.Files, target, plan.Kind, options.Force, inputs, plan.ByteLength);
        }

        ModelSolving? solving = options.Solving is null ? null : ModelSolving.Create(source, plan, options.Solving, options.Effort, options.Strict, context);
        if (options.DryRun) return Report(solving, null);

        using SolvedTensors? solved = _solved = solving?.Run();
        _solvedAt = _watch.Elapsed.TotalSeconds;
        using PendingOutput output = PendingOutput.Begin(context.Files, plan.Target, plan.Kind);
        IWriteFile[] files = [.. plan.Files.Select(output.Create)];
        SolvedOverlay? overlay = solved is null ? null : new SolvedOverlay(solved, solving!.Rewritten);
        _written = overlay?.Apply(plan);
        ConversionRunner runner = new(overlay ?? (ITensorSource)source.Tensors, _written ?? plan, SolverCatalog.RoundToNearest, options.Effort, context);
        IReadOnlyList<ErrorSums> sums = runner.Run(files);
        foreach (CompanionFile companion in plan.Companions) output.WriteFile(companion.Name, companion.Bytes);
        output.Flush();
        source.RequireUnchanged();
        Verify(output, runner);
        context.Cancellation.ThrowIfCancellationRequested();
        ConversionReport report = Report(solving, sums);
        output.Publish();
        solved?.Delete();
        WriteReport(report);
        return report;
    }

    /// <summary>Writes the report beside or into the published output, replacing an older one.</summary>
    public void WriteReport(ConversionReport report) =>
        PendingOutput.PublishSmallFile(context.Files, ReportPath(plan), JsonSerializer.SerializeToUtf8Bytes(report, ReportJson.Default.ConversionReport));

    /// <summary>Writes what was measured of the published output into its report and, of a folder, its card.</summary>
    public void WriteMeasurement(ConversionReport report, string text)
    {
        WriteReport(report);
        string card = Path.Combine(plan.Target, ModelCard.FileName);
        if (!plan.IsFolder || !context.Files.FileExists(card)) return;
        PendingOutput.PublishSmallFile(context.Files, card, ModelCard.WithMeasurement(context.Files.ReadAllBytes(card, context.Limits.JsonFileBytes), report.Validation!, text));
    }

    private IEnumerable<string> InputPaths() =>
        source.Location.Kind == ModelKind.BuiltIn ? [] : [.. source.WeightPaths, source.Location.Path];

    private void Verify(PendingOutput output, ConversionRunner runner)
    {
        using Checkpoint reopened = Checkpoint.Open(plan.IsFolder ? output.TemporaryPath : output.PathOf(plan.Files[0].Name), context);
        runner.Verify(reopened.Raw);
    }

    private ConversionReport Report(ModelSolving? solving, IReadOnlyList<ErrorSums>? sums) => new(
        Version,
        source.Location.DisplayName,
        options.Scheme,
        options.Effort.ToString().ToLowerInvariant(),
        plan.Target,
        plan.ByteLength,
        plan.ValueCount,
        plan.BitsPerWeight,
        _watch.Elapsed.TotalSeconds,
        Process.GetCurrentProcess().PeakWorkingSet64,
        options.DryRun,
        [.. plan.Items.Select((item, index) => Report(item, (_written ?? plan).Items[index], sums?[index], item.IsCopy ? null : plan.Importance?.TokensSeen(item.ImportanceOf?.Name ?? item.Name)))],
        context.Events.Events,
        Method: options.Method,
        Gptq: solving?.Report(sums is null ? null : _watch.Elapsed.TotalSeconds - _solvedAt),
        Rescaling: solving?.ReportRescaling());

    private TensorReport Report(PlanItem item, PlanItem written, ErrorSums? sums, long? tokensSeen)
    {
        TensorReport report = new(
            item.Name,
            item.Target.Tensor.Type.Name,
            item.RequestedType.Name,
            item.Target.Tensor.Shape.Dimensions.ToArray(),
            item.ByteLength,
            sums?.Rmse,
            sums?.RelativeError,
            item.IsExact ? "exact" : item.Target.Tensor.Type.IsQuantized ? written.IsCopy ? "copy" : SolverCatalog.RoundToNearest.Name : ReferenceEquals(written.Parts[0], item.Parts[0]) ? item.IsCopy ? "copy" : "cast" : "rescaled",
            tokensSeen);
        return _solved?.Complete(report, item) ?? report;
    }
}
