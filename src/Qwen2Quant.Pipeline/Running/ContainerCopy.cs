using System.Diagnostics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>Where a container is cut.</summary>
/// <param name="Bytes">Most bytes of tensors in one file.</param>
/// <param name="Tensors">Most tensors in one file; GGUF only.</param>
public sealed record ContainerLimit(long? Bytes, long? Tensors);

/// <summary>
/// The tensors of a container, as they are, in one file or several: parts of a GGUF file, shards of a safetensors folder, packed or plain, of any model. Bytes are taken over whatever
/// they mean, and so are metadata and the other small files of a folder.
/// </summary>
public sealed class ContainerCopy : IDisposable
{
    private readonly ITensorSource _source;
    private readonly SourceFiles _files;
    private readonly string _location;
    private readonly ConversionPlan _plan;
    private readonly RunContext _context;

    private ContainerCopy(ITensorSource source, SourceFiles files, string location, ConversionPlan plan, RunContext context) =>
        (_source, _files, _location, _plan, _context) = (source, files, location, plan, context);

    /// <summary>Opens a container and plans its copy; no weight is read.</summary>
    /// <param name="path">A GGUF file, any part of a split one, or a folder.</param>
    /// <param name="limit">Null for one file.</param>
    /// <exception cref="QuantException">The container is refused, or the limit has no meaning for it.</exception>
    public static ContainerCopy Open(string path, ContainerLimit? limit, string target, RunContext context)
    {
        ModelLocation location = ModelLocator.Locate(context.Files, path);
        if (location.Kind == ModelKind.BuiltIn) throw new QuantException(ErrorKind.Usage, "built-in models are no files") { Found = path, Remedy = "Use convert." };
        if (location.Kind == ModelKind.Gguf)
        {
            GgufFile gguf = GgufFile.Open(context.Files, location.Path, context.ReadOptions);
            return Create(gguf, () => [.. gguf.Parts.Select(part => part.Path)], () => PlanGguf(gguf, limit, target));
        }

        if (limit?.Tensors is not null) throw new QuantException(ErrorKind.Usage, "--max-tensors has no meaning for safetensors folders") { Remedy = "Pass --max-shard-size." };
        SafetensorsCheckpoint weights = Checkpoint.OpenWeights(location, context.Files, context);
        return Create(weights, () => [.. weights.Files.Select(file => file.Path)], () => PlanFolder(weights, location.Path, limit?.Bytes ?? long.MaxValue, target, context));

        ContainerCopy Create(ITensorSource source, Func<string[]> paths, Func<ConversionPlan> plan)
        {
            try
            {
                return new ContainerCopy(source, new SourceFiles(context.Files, paths()), location.Path, plan(), context);
            }
            catch
            {
                source.Dispose();
                throw;
            }
        }
    }

    /// <param name="force">Replaces an existing output.</param>
    /// <param name="dryRun">Plans and checks only.</param>
    /// <exception cref="QuantException">The output is refused, the disk fails, or the output does not verify; nothing is then published.</exception>
    public ContainerReport Run(bool force, bool dryRun)
    {
        Stopwatch watch = Stopwatch.StartNew();
        foreach (QuantEvent planned in _plan.Events) _context.Events.Report(planned);
        if (_plan.Files.Count == 1 && _files.Paths.Count == 1) _context.Events.Report(new QuantEvent("one-file", "the source is one file, and the output is"));
        foreach (string target in _plan.Kind == OutputKind.Parts ? _plan.Files.Select(file => Path.Combine(Path.GetDirectoryName(_plan.Target) ?? "", file.Name)) : [_plan.Target])
        {
            PendingOutput.CheckTarget(_context.Files, target, _plan.Kind, force, [.. _files.Paths, _location], _plan.ByteLength);
        }

        if (!dryRun) Write();
        return new ContainerReport(_plan.Target, _plan.Files.Count, _plan.Items.Count, _plan.ByteLength, watch.Elapsed.TotalSeconds, dryRun, _context.Events.Events);
    }

    public void Dispose() => _source.Dispose();

    private void Write()
    {
        using PendingOutput output = PendingOutput.Begin(_context.Files, _plan.Target, _plan.Kind);
        IWriteFile[] files = [.. _plan.Files.Select(output.Create)];
        ConversionRunner runner = new(_source, _plan, SolverCatalog.RoundToNearest, Effort.Reference, _context);
        runner.Run(files);
        foreach (CompanionFile companion in _plan.Companions) output.WriteFile(companion.Name, companion.Bytes);
        output.Flush();
        _files.RequireUnchanged();

        // What is to be said of the source was said when that was opened.
        ReadOptions options = new() { Limits = _context.Limits };
        using (ITensorSource reopened = _plan.IsFolder
            ? SafetensorsCheckpoint.Open(_context.Files, output.TemporaryPath, options)
            : GgufFile.Open(_context.Files, output.PathOf(_plan.Files[0].Name), options))
        {
            runner.Verify(reopened);
        }

        _context.Cancellation.ThrowIfCancellationRequested();
        output.Publish();
    }

    private static ConversionPlan PlanGguf(GgufFile gguf, ContainerLimit? limit, string target)
    {
        const string extension = ".gguf";
        string name = Path.GetFileName(target), prefix = name.EndsWith(extension, StringComparison.OrdinalIgnoreCase) ? name[..^extension.Length] : name;
        OutputTensor[] tensors = [.. gguf.Tensors.Select(entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))];
        IReadOnlyList<PlannedFile> files = limit is null
            ? [GgufPlan.Create(gguf.Metadata, tensors, name, isVerbatim: true)]
            : GgufPlan.CreateSplit(gguf.Metadata, tensors, prefix, limit.Tensors is { } count ? GgufSplitLimit.Tensors(count) : GgufSplitLimit.Bytes(limit.Bytes!.Value), isVerbatim: true);
        return Plan(gguf, files, limit is null ? target : Path.Combine(Path.GetDirectoryName(target) ?? "", files[0].Name), false, [], []);
    }

    private static ConversionPlan PlanFolder(SafetensorsCheckpoint weights, string folder, long maxShardBytes, string target, RunContext context)
    {
        List<QuantEvent> events = [];
        OutputTensor[] tensors = [.. weights.Tensors.Select(entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))];
        SafetensorsPlan plan = SafetensorsPlan.Create(tensors, Metadata(weights, events), maxShardBytes);
        List<CompanionFile> companions = Companions(folder, context, events);
        if (plan.Index is not null) companions.Add(new CompanionFile(SafetensorsPlan.IndexFileName, plan.Index));
        return Plan(weights, plan.Files, target, true, companions, events);
    }

    /// <summary>The strings of all shards; where they differ in one, the first shard's.</summary>
    private static Dictionary<string, string> Metadata(SafetensorsCheckpoint weights, List<QuantEvent> events)
    {
        Dictionary<string, string> metadata = new(StringComparer.Ordinal);
        foreach ((string key, string value) in weights.Files.SelectMany(file => file.Metadata))
        {
            if (metadata.TryAdd(key, value) || metadata[key] == value) continue;
            events.Add(new QuantEvent("metadata-differ", $"the shards' metadata differ in '{TextEscape.Escape(key)}'; the first shard's are kept"));
        }

        return metadata;
    }

    /// <summary>Whatever else is small and in the folder itself.</summary>
    private static List<CompanionFile> Companions(string folder, RunContext context, List<QuantEvent> events)
    {
        List<CompanionFile> companions = [];
        foreach (string name in context.Files.ListTyped(folder))
        {
            string path = Path.Combine(folder, name);
            if (name.EndsWith(".safetensors", StringComparison.Ordinal) || name.EndsWith(".safetensors.index.json", StringComparison.Ordinal)) continue;
            if (!context.Files.FileExists(path)) events.Add(new QuantEvent("not-copied", $"{TextEscape.Escape(name)}: not a file of the folder itself, not copied"));
            else if (context.Files.IdentifyTyped(path).Length > context.Limits.JsonFileBytes) events.Add(new QuantEvent("not-copied", $"{TextEscape.Escape(name)}: too large to be anything but weights, not copied"));
            else companions.Add(new CompanionFile(name, context.Files.ReadAllBytes(path, context.Limits.JsonFileBytes)));
        }

        return companions;
    }

    private static ConversionPlan Plan(ITensorSource source, IReadOnlyList<PlannedFile> files, string target, bool isFolder, IReadOnlyList<CompanionFile> companions, IReadOnlyList<QuantEvent> events) => new()
    {
        Target = target,
        IsFolder = isFolder,
        Files = files,
        Companions = companions,
        Items = [.. files.SelectMany((file, index) => file.Tensors.Select(planned => new PlanItem(index, planned, planned.Tensor.Type, [source.Find(planned.Tensor.Name)!]) { IsVerbatim = true }))],
        Events = events,
    };
}
