using System.IO.Enumeration;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>Makes a manifest of jobs: every model is opened, every output planned, and everything that would be refused later is refused now.</summary>
/// <param name="jobsPath">Of the file of jobs, which relative paths in it are relative to.</param>
/// <param name="target">Folder of the manifest and the outputs.</param>
/// <param name="force">Outputs that other runs left may be replaced.</param>
public sealed class BatchPlanner(string jobsPath, string target, bool force, RunContext context)
{
    private readonly IFileLayer _files = context.Files;
    private readonly string _jobsFolder = Path.GetDirectoryName(Path.GetFullPath(jobsPath))!;
    private readonly List<BatchItem> _items = [];
    private readonly List<BatchTask> _tasks = [];
    private readonly Dictionary<string, BatchStatistics> _statistics = new(StringComparer.Ordinal);
    private readonly Dictionary<string, IReadOnlyList<string>> _statisticsTasks = new(StringComparer.Ordinal);
    private readonly List<QuantException> _problems = [];

    /// <summary>Everything that is wrong, in the order of the items.</summary>
    public IReadOnlyList<QuantException> Problems => _problems;

    /// <returns>The manifest; null when there are <see cref="Problems"/>.</returns>
    /// <exception cref="QuantException">The file of jobs is refused as a whole.</exception>
    public BatchManifest? Plan()
    {
        foreach (BatchJob job in BatchJob.Read(_files.ReadAllBytes(jobsPath, context.Limits.JsonFileBytes), jobsPath))
        {
            QuantizationChoices choices = job.Choices(jobsPath);
            choices = choices with { Recipe = Resolved(choices.Recipe), Imatrix = Resolved(choices.Imatrix) };
            QualityGate gate = GateOf(job.FailAbove, job.FailBelow);
            if (job.Validate is null && (job.FailAbove is { Count: > 0 } || job.FailBelow is { Count: > 0 })) throw new QuantException(ErrorKind.Usage, "\"fail_above\" and \"fail_below\" need a measurement") { Path = jobsPath, Remedy = "Add \"validate\": {}." };
            if (gate.NeedsGeneration) throw new QuantException(ErrorKind.Usage, "\"validate\" generates no text") { Path = jobsPath, Remedy = "Use figures of the text." };
            _ = job.Validate?.Windows();
            foreach (string model in job.Models!.SelectMany(Expand))
            {
                foreach (string scheme in job.Schemes!) Try(() => Add(job, choices, model, scheme));
            }
        }

        if (_items.Count == 0 && _problems.Count == 0) throw new QuantException(ErrorKind.Usage, "there is nothing to do") { Path = jobsPath };
        foreach (IGrouping<string, BatchItem> same in _items.GroupBy(item => item.Output, StringComparer.OrdinalIgnoreCase).Where(group => group.Count() > 1))
        {
            _problems.Add(new QuantException(ErrorKind.Usage, $"{same.Count()} items have one output") { Path = jobsPath, Found = same.Key, Remedy = "Give jobs a \"name\" of their own, for example \"{model}-{scheme}-{method}-{effort}\"." });
        }

        Try(CheckDisk);
        return _problems.Count > 0 ? null : new BatchManifest(Conversion.Version, _items, [.. _statistics.Values], _tasks);
    }

    /// <summary>The limits of an item.</summary>
    internal static QualityGate GateOf(IReadOnlyDictionary<string, double>? failAbove, IReadOnlyDictionary<string, double>? failBelow) =>
        QualityGate.Parse(Texts(failAbove), Texts(failBelow));

    /// <summary>Equal when an output is measured alike and held to the same limits.</summary>
    internal static string MeasurementId(EvaluationText text, BatchValidation validate, IReadOnlyDictionary<string, double>? failAbove, IReadOnlyDictionary<string, double>? failBelow) =>
        RunSettings.Hash($"{text.Text} {validate with { Text = "" }} {string.Join(' ', Texts(failAbove))} | {string.Join(' ', Texts(failBelow))}")[..8];

    private static IEnumerable<string> Texts(IReadOnlyDictionary<string, double>? limits) => (limits ?? new Dictionary<string, double>()).Select(limit => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{limit.Key}={limit.Value:R}"));

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (QuantException problem)
        {
            _problems.Add(problem);
        }
    }

    private void Add(BatchJob job, QuantizationChoices choices, string model, string scheme)
    {
        RunContext own = context with { Events = new() };
        SchemeChoice chosen = SchemeChoice.Read(scheme, choices, own);
        bool isSolved = MethodChoice.IsSolved(choices, chosen.Packed);
        BatchCalibration? calibration = job.Calibration is { } given ? given with { Text = Resolved(given.Text)! } : null;
        bool needsOwn = isSolved || chosen.Packed is { NeedsInputs: true };
        string? depth = calibration is null ? null
            : isSolved ? calibration.Schedule == BatchCalibration.Parallel && !MethodChoice.NeedsRanges(choices) && chosen.Packed is not { NeedsInputs: true } ? "gram" : null
            : choices.Imatrix is null && !needsOwn ? "diagonal" : null;
        string name = Name(job.Name, model, scheme, choices, own);
        string output = chosen.Packed is null ? name + ".gguf" : name;
        QuantizationChoices planned = calibration is null ? choices : BatchItemRun.WithCalibration(choices, depth is null && !needsOwn ? null : calibration);
        using QuantizationRequest request = QuantizationRequest.Open(model, scheme, Path.Combine(target, output), planned, new OutputHandling(DryRun: true), own, Stream.Null);
        if (request.Plan.Obstacle is { } obstacle) throw obstacle;
        output = Path.GetFileName(Path.TrimEndingDirectorySeparator(request.Plan.Target));
        if (!BatchManifest.IsPlainName(output)) throw new QuantException(ErrorKind.Usage, "an output's name is none") { Rule = BatchRules.PathsInside, Found = output, Expected = "a name without folders", Remedy = "Give the job another \"name\"." };
        // What goes layer by layer over what the layers before became cannot be cut.
        int parts = isSolved && depth is null ? 1 : job.EncodeParts ?? 1;
        Dictionary<string, string> identity = BatchItemRun.Identity(request.Source, chosen, choices, depth is null && !needsOwn ? null : calibration, depth, parts, own);
        string id = RunSettings.Hash(string.Join('\n', identity.Select(pair => $"{pair.Key}={pair.Value}")))[..16];
        int index = _items.Count;
        List<string> tasks = [];
        string? statistics = depth is null ? null : Share(request, calibration!, depth, tasks, own);
        BatchEstimate estimate = new(request, depth, calibration, job.Validate, own);
        string[] shared = [.. tasks.TakeLast(1)];
        List<string> encodes = [];
        for (int part = 0; part < parts; part++) encodes.Add(Task($"{id}-encode{(parts > 1 ? $"-{part:000}" : "")}", BatchStage.Encode, shared, part, parts, estimate.EncodeMemoryBytes, estimate.EncodeSeconds / parts));
        tasks.AddRange(encodes);
        if (parts > 1) tasks.Add(Task($"{id}-merge", BatchStage.Merge, encodes, 0, 1, estimate.EncodeMemoryBytes, estimate.EncodeSeconds / parts));
        if (job.Validate is { } validate)
        {
            EvaluationText text = EvaluationText.Load(_files, Resolved(validate.Text)!, Stream.Null);
            tasks.Add(Task($"{id}-prove-{MeasurementId(text, validate, job.FailAbove, job.FailBelow)}", BatchStage.Prove, [tasks[^1]], 0, 1, estimate.ProveMemoryBytes, estimate.ProveSeconds));
        }

        CheckOutput(output, tasks[^1]);
        _items.Add(new BatchItem(
            index, id, name, model, scheme, output, request.Plan.ByteLength, tasks.Max(task => _tasks.First(known => known.Id == task).MemoryBytes), BatchEstimate.TimeClass(estimate.Seconds), identity, choices, statistics, depth is null && needsOwn ? calibration : null,
            job.Validate is null ? null : job.Validate with { Text = Resolved(job.Validate.Text)! }, job.FailAbove, job.FailBelow, tasks));

        string Task(string taskId, BatchStage stage, IReadOnlyList<string> needs, int part, int count, long memoryBytes, double seconds)
        {
            _tasks.Add(new BatchTask(taskId, stage, needs, index, null, part, count, memoryBytes, BatchEstimate.TimeClass(seconds)));
            return taskId;
        }
    }

    /// <summary>The statistics of a model on a text, planned once; their tasks are added to an item's.</summary>
    private string Share(QuantizationRequest request, BatchCalibration calibration, string depth, List<string> tasks, RunContext own)
    {
        EvaluationText text = EvaluationText.Load(_files, calibration.Text, Stream.Null);
        string id = RunSettings.Hash($"{Conversion.Version} {request.Source.Identity} {depth} {text.Text} {calibration}")[..16];
        if (!_statisticsTasks.TryGetValue(id, out IReadOnlyList<string>? known))
        {
            BatchStatistics statistics = new(id, request.Source.Location.Kind == Checkpoints.ModelKind.BuiltIn ? request.Source.Location.Path : Path.GetFullPath(request.Source.Location.WeightsPath ?? request.Source.Location.Path), depth, calibration, BatchFolder.StatisticsPath(id, depth));
            BatchEstimate.RequireWindows(request.Source, text, statistics.Windows, calibration.Partitions, own);
            _statistics.Add(id, statistics);
            BatchEstimate estimate = new(request, depth, calibration, null, own);
            List<string> added = [];
            for (int part = 0; part < calibration.Partitions; part++)
            {
                added.Add($"{id}-statistics{(calibration.Partitions > 1 ? $"-{part:000}" : "")}");
                _tasks.Add(new BatchTask(added[^1], BatchStage.Statistics, [], null, id, part, calibration.Partitions, estimate.StatisticsMemoryBytes, BatchEstimate.TimeClass(estimate.StatisticsSeconds / calibration.Partitions)));
            }

            if (calibration.Partitions > 1)
            {
                _tasks.Add(new BatchTask($"{id}-sum", BatchStage.Sum, [.. added], null, id, 0, 1, estimate.StatisticsMemoryBytes, BatchEstimate.TimeClass(1)));
                added.Add($"{id}-sum");
            }

            _statisticsTasks.Add(id, known = added);
        }

        tasks.AddRange(known);
        return id;
    }

    private void CheckOutput(string output, string lastTask)
    {
        string path = Path.Combine(target, output);
        bool exists = _files.FileExists(path) || _files.DirectoryExists(path);
        if (!exists || force || new BatchFolder(_files, Path.GetFullPath(target)).TasksWithReceipt().Contains(lastTask)) return;
        throw new QuantException(ErrorKind.Usage, "the output exists, and is none of this batch") { Path = path, Remedy = "Choose another --out, give the job another \"name\", or pass --force to replace it." };
    }

    private void CheckDisk()
    {
        BatchFolder folder = new(_files, Path.GetFullPath(target));
        IReadOnlySet<string> done = folder.TasksWithReceipt();
        string place = _files.DirectoryExists(target) ? Path.GetFullPath(target) : Path.GetDirectoryName(Path.GetFullPath(target))!;
        if (!_files.DirectoryExists(place)) throw new QuantException(ErrorKind.Resource, "the folder of the output does not exist") { Path = place, Remedy = "Create it first." };
        long needed = _items.Where(item => !done.Contains(item.Tasks[^1])).Sum(item => item.Bytes), free = _files.FreeBytes(Path.Combine(place, "x"));
        if (needed > free) throw new QuantException(ErrorKind.Resource, "the disk has too little room for the outputs") { Path = place, Found = $"{free} bytes free", Expected = $"{needed} bytes" };
    }

    private string Name(string? template, string model, string scheme, QuantizationChoices choices, RunContext own)
    {
        string modelName = Checkpoints.ModelLocator.Locate(own.Files, model).DisplayName;
        string schemeName = scheme.StartsWith("gguf:", StringComparison.OrdinalIgnoreCase) ? scheme[5..] : scheme.Replace(':', '-');
        string name = (template ?? "{model}-{scheme}").Replace("{model}", modelName, StringComparison.Ordinal).Replace("{scheme}", schemeName, StringComparison.Ordinal)
            .Replace("{method}", choices.Method ?? "default", StringComparison.Ordinal).Replace("{effort}", choices.Effort ?? "normal", StringComparison.Ordinal);
        if (name.Contains('{', StringComparison.Ordinal) || !BatchManifest.IsPlainName(name))
        {
            throw new QuantException(ErrorKind.Usage, "an output's name is none") { Rule = BatchRules.PathsInside, Path = jobsPath, Found = name, Expected = "a name without folders; {model}, {scheme}, {method} and {effort} stand for what they say" };
        }

        return name;
    }

    /// <summary>The models that a text of the file names: a path may have <c>*</c> and <c>?</c> in its last part.</summary>
    private IEnumerable<string> Expand(string model)
    {
        if (!model.Contains('*', StringComparison.Ordinal) && !model.Contains('?', StringComparison.Ordinal)) return [Resolved(model)!];
        string full = Path.GetFullPath(Path.Combine(_jobsFolder, model)), folder = Path.GetDirectoryName(full)!, pattern = Path.GetFileName(full);
        string[] found = [.. (_files.DirectoryExists(folder) ? _files.ListTyped(folder) : [])
            .Where(name => FileSystemName.MatchesSimpleExpression(pattern, name, ignoreCase: false)).Select(name => Path.Combine(folder, name))
            .Where(path => _files.DirectoryExists(path) ? _files.FileExists(Path.Combine(path, "config.json")) : path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase))];
        return found.Length > 0 ? found : throw new QuantException(ErrorKind.InvalidInput, "no model has such a name") { Path = full, Expected = "folders with config.json, or .gguf files" };
    }

    /// <summary>A path as it is from anywhere; names in a cache and built-in things stay.</summary>
    private string? Resolved(string? path)
    {
        if (path is null || path.StartsWith("builtin:", StringComparison.Ordinal)) return path;
        string full = Path.GetFullPath(Path.Combine(_jobsFolder, path));
        return _files.FileExists(full) || _files.DirectoryExists(full) ? full : path;
    }
}
