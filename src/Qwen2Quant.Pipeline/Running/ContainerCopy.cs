using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
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
/// The tensors of a container, as they are, in one file or several: parts of a GGUF file, shards of a safetensors folder, packed or plain. Metadata and the other files of a folder
/// are taken over.
/// </summary>
public sealed class ContainerCopy : IDisposable
{
    private readonly ModelLocation _location;
    private readonly ITensorSource _source;
    private readonly IReadOnlyList<string> _paths;
    private readonly ConversionPlan _plan;
    private readonly bool _force;
    private readonly RunContext _context;

    private ContainerCopy(ModelLocation location, ITensorSource source, IReadOnlyList<string> paths, ConversionPlan plan, bool force, RunContext context) =>
        (_location, _source, _paths, _plan, _force, _context) = (location, source, paths, plan, force, context);

    /// <summary>Opens a container and plans its copy; no weight is read.</summary>
    /// <param name="path">A GGUF file, any part of a split one, or a folder.</param>
    /// <param name="limit">Null for one file.</param>
    /// <exception cref="QuantException">The container is refused, or the limit has no meaning for it.</exception>
    public static ContainerCopy Open(string path, ContainerLimit? limit, string target, bool force, RunContext context)
    {
        ModelLocation location = ModelLocator.Locate(context.Files, path);
        if (location.Kind == ModelKind.BuiltIn) throw new QuantException(ErrorKind.Usage, "built-in models are no files") { Found = path, Remedy = "Use convert." };
        if (location.Kind == ModelKind.Gguf)
        {
            GgufFile gguf = GgufFile.Open(context.Files, location.Path, context.ReadOptions);
            return new ContainerCopy(location, gguf, [.. gguf.Parts.Select(part => part.Path)], PlanGguf(gguf, limit, target), force, context);
        }

        if (limit?.Tensors is not null) throw new QuantException(ErrorKind.Usage, "--max-tensors has no meaning for safetensors folders") { Remedy = "Pass --max-shard-size." };
        SafetensorsCheckpoint weights = Checkpoint.OpenWeights(location, context.Files, context);
        return new ContainerCopy(location, weights, [.. weights.Files.Select(file => file.Path)], PlanFolder(weights, location.Path, limit?.Bytes ?? long.MaxValue, target, context), force, context);
    }

    /// <exception cref="QuantException">The output is refused, a value is not finite, the disk fails, or the output does not verify; nothing is then published.</exception>
    public ContainerReport Run()
    {
        Stopwatch watch = Stopwatch.StartNew();
        foreach (string target in _plan.Kind == OutputKind.Parts ? _plan.Files.Select(file => Path.Combine(Path.GetDirectoryName(_plan.Target) ?? "", file.Name)) : [_plan.Target])
        {
            PendingOutput.CheckTarget(_context.Files, target, _plan.Kind, _force, [.. _paths, _location.Path], _plan.ByteLength);
        }

        using PendingOutput output = PendingOutput.Begin(_context.Files, _plan.Target, _plan.Kind);
        IWriteFile[] files = [.. _plan.Files.Select(output.Create)];
        ConversionRunner runner = new(_source, _plan, SolverCatalog.RoundToNearest, Core.Encoding.Effort.Reference, _context);
        runner.Run(files);
        foreach (CompanionFile companion in _plan.Companions) output.WriteFile(companion.Name, companion.Bytes);
        output.Flush();
        using (ITensorSource reopened = _plan.IsFolder
            ? SafetensorsCheckpoint.Open(_context.Files, output.TemporaryPath, _context.ReadOptions)
            : GgufFile.Open(_context.Files, output.PathOf(_plan.Files[0].Name), _context.ReadOptions))
        {
            runner.Verify(reopened);
        }

        _context.Cancellation.ThrowIfCancellationRequested();
        output.Publish();
        return new ContainerReport(_plan.Target, _plan.Files.Count, _plan.Items.Count, _plan.ByteLength, watch.Elapsed.TotalSeconds);
    }

    public void Dispose() => _source.Dispose();

    private static ConversionPlan PlanGguf(GgufFile gguf, ContainerLimit? limit, string target)
    {
        const string extension = ".gguf";
        string name = Path.GetFileName(target), prefix = name.EndsWith(extension, StringComparison.OrdinalIgnoreCase) ? name[..^extension.Length] : name;
        OutputTensor[] tensors = [.. gguf.Tensors.Select(entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))];
        IReadOnlyList<PlannedFile> files = limit is null
            ? [GgufPlan.Create(gguf.Metadata, tensors, name)]
            : GgufPlan.CreateSplit(gguf.Metadata, tensors, prefix, limit.Tensors is { } count ? GgufSplitLimit.Tensors(count) : GgufSplitLimit.Bytes(limit.Bytes!.Value));
        return Plan(gguf, files, limit is null ? target : Path.Combine(Path.GetDirectoryName(target) ?? "", files[0].Name), false, []);
    }

    private static ConversionPlan PlanFolder(SafetensorsCheckpoint weights, string folder, long maxShardBytes, string target, RunContext context)
    {
        OutputTensor[] tensors = [.. weights.Tensors.Select(entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))];
        SafetensorsPlan plan = SafetensorsPlan.Create(tensors, weights.Files[0].Metadata, maxShardBytes);
        List<CompanionFile> companions = [];
        foreach (string name in context.Files.ListTyped(folder))
        {
            string path = Path.Combine(folder, name);
            bool isWeights = name.EndsWith(".safetensors", StringComparison.Ordinal) || name.EndsWith(".safetensors.index.json", StringComparison.Ordinal);
            if (!isWeights && context.Files.FileExists(path)) companions.Add(new CompanionFile(name, context.Files.ReadAllBytes(path, context.Limits.JsonFileBytes)));
        }

        if (plan.Index is not null) companions.Add(new CompanionFile(SafetensorsPlan.IndexFileName, plan.Index));
        return Plan(weights, plan.Files, target, true, companions);
    }

    private static ConversionPlan Plan(ITensorSource source, IReadOnlyList<PlannedFile> files, string target, bool isFolder, IReadOnlyList<CompanionFile> companions) => new()
    {
        Target = target,
        IsFolder = isFolder,
        Files = files,
        Companions = companions,
        Items = [.. files.SelectMany((file, index) => file.Tensors.Select(planned => new PlanItem(index, planned, planned.Tensor.Type, [source.Find(planned.Tensor.Name)!])))],
        Events = [],
    };
}
