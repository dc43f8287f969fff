using System.Diagnostics;
using System.Globalization;
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
/// <param name="Resume">Goes on with what a run with equal settings left, and leaves alone what one finished.</param>
/// <param name="OutputName">What the report calls the output; null for its path.</param>
public sealed record ConversionOptions(string Scheme, bool Force = false, bool Strict = false, bool DryRun = false, Effort Effort = Effort.Normal, SolvingJob? Solving = null, bool Resume = false, string? OutputName = null)
{
    /// <summary>As <c>--method</c> spells it.</summary>
    public string Method => Solving?.Method.Name ?? SolverCatalog.RoundToNearest.Name;
}

/// <summary>Runs a planned conversion from the opened source to the published, verified output.</summary>
public sealed class Conversion : IDisposable
{
    private const string ReportName = "qwen2quant.json";

    private readonly Stopwatch _watch = Stopwatch.StartNew();
    private readonly Checkpoint _source;
    private readonly ConversionOptions _options;
    private readonly RunContext _context;
    private ConversionPlan _plan;
    private ModelSolving? _solving;
    private SolvedTensors? _solved;
    private double _solvedAt;
    private ConversionPlan? _written;

    public Conversion(Checkpoint source, ConversionPlan plan, ConversionOptions options, RunContext context) => (_source, _plan, _options, _context) = (source, plan, options, context);

    /// <summary>Version of this program, as outputs and reports name it.</summary>
    public static string Version { get; } =
        typeof(Conversion).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];

    /// <summary>Path of the report of an output.</summary>
    public static string ReportPath(ConversionPlan plan) => plan.IsFolder ? Path.Combine(plan.Target, ReportName) : plan.Target + "." + ReportName;

    /// <exception cref="QuantException">The plan is refused, the source is bad, the disk fails, or the output does not verify; nothing is then published.</exception>
    public ConversionReport Run()
    {
        bool resumes = _options.Resume && !_options.DryRun;
        IReadOnlyDictionary<string, string> settings = Prepare(checksTargets: !resumes);
        if (_options.DryRun) return Report(null, settings);
        FinishedOutput finished = new(_context.Files, _plan, ReportPath(_plan));
        if (resumes)
        {
            if (finished.Find(settings, _options.Force) is { } report)
            {
                WorkFolder.Delete(_context.Files, WorkFolder.PathOf(_plan.Target));
                _context.Events.Report(new QuantEvent("already-done", "the output is there, made with the same settings; nothing was done"));
                return report with { Output = _options.OutputName ?? _plan.Target, Events = [.. report.Events, .. _context.Events.Events.Where(found => found.Code == "already-done")] };
            }

            CheckTargets(force: _options.Force || WorkFolder.IsPublishing(_context.Files, _plan.Target), isContinued: _context.Files.DirectoryExists(WorkFolder.PathOf(_plan.Target)));
        }

        using WorkFolder work = WorkFolder.Open(_context.Files, _plan.Target, settings, _options.Resume);
        if (work.IsRestarted) _context.Events.Report(new QuantEvent("restarted", "an interrupted run had begun this output; it is begun anew, as --resume was not given"));
        if (!work.IsResumed) WorkFolder.Delete(_context.Files, PendingOutput.TemporaryPathOf(_plan.Target));
        try
        {
            return Run(work, settings);
        }
        catch (Exception error) when (IsResumable(error))
        {
            _context.Events.Report(new QuantEvent("kept", string.Create(CultureInfo.InvariantCulture, $"what is done of the {_plan.ByteLength} bytes of the output is kept beside it ({TextEscape.Escape(Path.GetFileName(work.Path))}); --resume goes on there{Free()}")));
            throw;
        }
        catch
        {
            WorkFolder.Delete(_context.Files, PendingOutput.TemporaryPathOf(_plan.Target));
            work.Delete();
            throw;
        }
    }

    /// <summary>Does a share of the work that needs nothing of the rest: layers to be solved from statistics, or slabs to be encoded. <see cref="Run()"/> with Resume does what is left and publishes.</summary>
    public void RunShare(Share share)
    {
        IReadOnlyDictionary<string, string> settings = Prepare(checksTargets: false);
        using WorkFolder work = WorkFolder.Open(_context.Files, _plan.Target, settings, resume: true, share.Index);
        Complete(work);
        if (_solving is not null)
        {
            _solving.Run(work.Path, share).Dispose();
            return;
        }

        using SlabJournal journal = SlabJournal.Open(_context.Files, work.Path, share.Index);
        using PendingOutput output = Continue();
        ConversionRunner runner = new(_source.Tensors, _plan, SolverCatalog.RoundToNearest, _options.Effort, _context, journal);
        runner.TakeWritten();
        Write(output, runner, share);
    }

    /// <summary>Bytes that the process takes to solve the layers, as planned; null for plain rounding.</summary>
    public long? PlannedSolvingBytes()
    {
        if (_solving is null) CreateSolving();
        return _solving?.PlannedBytes;
    }

    public void Dispose() => _solving?.Dispose();

    private string Free()
    {
        try
        {
            return string.Create(CultureInfo.InvariantCulture, $"; {_context.Files.FreeBytes(_plan.Target)} bytes are free");
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            return "";
        }
    }

    /// <summary>False for what a run with equal settings would fail by again.</summary>
    private static bool IsResumable(Exception error) => error is not QuantException { Kind: ErrorKind.InvalidInput or ErrorKind.Unsupported or ErrorKind.Numeric or ErrorKind.Substitution or ErrorKind.Usage };

    private ConversionReport Run(WorkFolder work, IReadOnlyDictionary<string, string> settings)
    {
        Complete(work);
        using SolvedTensors? solved = _solved = _solving?.Run(work.Path, null);
        _solvedAt = _watch.Elapsed.TotalSeconds;
        SolvedOverlay? overlay = solved is null ? null : new SolvedOverlay(solved, _solving!.Rewritten);
        _written = overlay?.Apply(_plan);
        using SlabJournal journal = SlabJournal.Open(_context.Files, work.Path, 0);
        using PendingOutput output = Continue();
        ConversionRunner runner = new(overlay ?? (ITensorSource)_source.Tensors, _written ?? _plan, SolverCatalog.RoundToNearest, _options.Effort, _context, journal);
        runner.TakeWritten();
        Write(output, runner, null);
        try
        {
            Verify(output, runner);
        }
        catch (QuantException error) when (runner.TakenBytes > 0 && error.Kind is ErrorKind.Verification or ErrorKind.InvalidInput)
        {
            // After a power cut records may be there whose bytes are not.
            _context.Events.Report(new QuantEvent("rewritten", $"what an interrupted run had written does not read back, and is written again: {error.Message}"));
            runner.ForgetTaken();
            Write(output, runner, null);
            Verify(output, runner);
        }

        _context.Cancellation.ThrowIfCancellationRequested();
        if (runner.TakenBytes > 0) _context.Events.Report(new QuantEvent("resumed", string.Create(CultureInfo.InvariantCulture, $"an interrupted run had written {runner.TakenBytes} bytes of tensors; they were kept")));
        ConversionReport report = Report(runner.Sums(), settings);
        // Before the output has its name, so that no output is without one.
        PendingOutput.PublishSmallFile(_context.Files, _plan.IsFolder ? Path.Combine(output.TemporaryPath, ReportName) : ReportPath(_plan), Serialize(report));
        if (_plan.Kind == OutputKind.Parts) work.BeginPublishing();
        output.Publish();
        work.Delete();
        return report;
    }

    /// <summary>Reports the plan, refuses what must not run, and finds what decides the bytes.</summary>
    private Dictionary<string, string> Prepare(bool checksTargets)
    {
        ReportEvents([]);
        if (_options.Strict && _plan.Events.FirstOrDefault(planned => planned.IsSubstitution) is { } substitution)
        {
            throw new QuantException(ErrorKind.Substitution, $"--strict refuses {_plan.Events.Count(planned => planned.IsSubstitution)} substitution(s), the first: {substitution.Message}")
            {
                Path = _plan.Target,
            };
        }

        if (_plan.Obstacle is { } obstacle)
        {
            if (!_options.DryRun) throw obstacle;
            _context.Events.Report(new QuantEvent("cannot-run", $"without --dry-run this would be refused: {obstacle.Message}", obstacle.Tensor));
        }

        if (checksTargets) CheckTargets(_options.Force, isContinued: false);
        CreateSolving();
        Dictionary<string, string> settings = RunSettings.Of(_source, _plan, _options);
        _solving?.AddSettings(settings);
        return settings;
    }

    private void CreateSolving()
    {
        _solving?.Dispose();
        _solving = _options.Solving is null ? null : ModelSolving.Create(_source, _plan, _options.Solving, _options.Effort, _options.Strict, _context);
    }

    /// <summary>Collects the statistics that the plan lacks.</summary>
    private void Complete(WorkFolder work)
    {
        if (_plan.Complete is not { } complete) return;
        IReadOnlyList<QuantEvent> before = _plan.Events;
        _plan = complete(work.Path);
        ReportEvents(before);
        if (_plan.Obstacle is { } obstacle) throw obstacle;
        if (_solving is not null) CreateSolving();
    }

    private void ReportEvents(IReadOnlyList<QuantEvent> known)
    {
        foreach (QuantEvent planned in _plan.Events.Except(known)) _context.Events.Report(planned);
    }

    private void CheckTargets(bool force, bool isContinued)
    {
        string[] inputs = _source.Location.Kind == ModelKind.BuiltIn ? [] : [.. _source.WeightPaths, _source.Location.Path];
        foreach (string target in _plan.Kind == OutputKind.Parts ? _plan.Files.Select(file => Path.Combine(Path.GetDirectoryName(_plan.Target) ?? "", file.Name)) : [_plan.Target])
        {
            // What a run left takes room already, how much is not known.
            PendingOutput.CheckTarget(_context.Files, target, _plan.Kind, force, inputs, isContinued ? 0 : _plan.ByteLength);
        }
    }

    private PendingOutput Continue()
    {
        PendingOutput output = PendingOutput.Continue(_context.Files, _plan.Target, _plan.Kind, _plan.Files.Select(file => file.Name), WorkFolder.IsPublishing(_context.Files, _plan.Target));
        output.Keeps = true;
        return output;
    }

    /// <summary>Writes the files of the output, but for slabs that were taken over, and brings them to the disk.</summary>
    private void Write(PendingOutput output, ConversionRunner runner, Share? share)
    {
        IWriteFile[] files = [.. _plan.Files.Select(output.Create)];
        foreach (CompanionFile companion in _plan.Companions) output.WriteFile(companion.Name, companion.Bytes);
        runner.Run(files, share);
        output.Flush();
        _source.RequireUnchanged();
    }

    private void Verify(PendingOutput output, ConversionRunner runner)
    {
        using Checkpoint reopened = Checkpoint.Open(_plan.IsFolder ? output.TemporaryPath : output.PathOf(_plan.Files[0].Name), _context);
        runner.Verify(reopened.Raw);
    }

    private static byte[] Serialize(ConversionReport report) => JsonSerializer.SerializeToUtf8Bytes(report, ReportJson.Default.ConversionReport);

    /// <summary>Writes the report beside or into the published output, replacing an older one.</summary>
    public void WriteReport(ConversionReport report) =>
        PendingOutput.PublishSmallFile(_context.Files, ReportPath(_plan), Serialize(report));

    /// <summary>Writes what was measured of the published output into its report and, of a folder, its card.</summary>
    public void WriteMeasurement(ConversionReport report, string text)
    {
        WriteReport(report);
        string card = Path.Combine(_plan.Target, ModelCard.FileName);
        if (!_plan.IsFolder || !_context.Files.FileExists(card)) return;
        PendingOutput.PublishSmallFile(_context.Files, card, ModelCard.WithMeasurement(_context.Files.ReadAllBytes(card, _context.Limits.JsonFileBytes), report.Validation!, text));
    }

    private ConversionReport Report(IReadOnlyList<ErrorSums>? sums, IReadOnlyDictionary<string, string> settings) => new(
        Version,
        _source.Location.DisplayName,
        _options.Scheme,
        _options.Effort.ToString().ToLowerInvariant(),
        _options.OutputName ?? _plan.Target,
        _plan.ByteLength,
        _plan.ValueCount,
        _plan.BitsPerWeight,
        _watch.Elapsed.TotalSeconds,
        Process.GetCurrentProcess().PeakWorkingSet64,
        _options.DryRun,
        [.. _plan.Items.Select((item, index) => Report(item, (_written ?? _plan).Items[index], sums?[index], item.IsCopy ? null : _plan.Importance?.TokensSeen(item.ImportanceOf?.Name ?? item.Name)))],
        _context.Events.Events,
        Method: _options.Method,
        Gptq: _solving?.Report(sums is null ? null : _watch.Elapsed.TotalSeconds - _solvedAt),
        Rescaling: _solving?.ReportRescaling(),
        Settings: settings);

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
