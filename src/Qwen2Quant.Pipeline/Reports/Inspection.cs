using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>One tensor as its container lists it; type and size are unknown for types that nobody has.</summary>
public sealed record InspectedTensor(string Name, string Type, IReadOnlyList<long> Shape, long? Bytes, string File);

/// <summary>How many tensors have a type, and what they take.</summary>
public sealed record TypeCensus(string Type, int Tensors, long Parameters, long Bytes);

/// <summary>What the headers of a model say; nothing of its weights is read.</summary>
/// <param name="Problem">Why the model cannot be converted, or null when it can.</param>
/// <param name="Metadata">Key and value as text, in the file's order.</param>
public sealed record InspectionReport(
    string Model,
    string Container,
    string? Architecture,
    int? Layers,
    int? HiddenSize,
    int? Heads,
    int? KeyValueHeads,
    int? VocabularySize,
    int? ContextLength,
    bool? TiedEmbeddings,
    int? Experts,
    long Parameters,
    long Bytes,
    double BitsPerWeight,
    IReadOnlyList<TypeCensus> Types,
    string? Problem,
    IReadOnlyList<InspectedTensor>? Tensors,
    IReadOnlyDictionary<string, string>? Metadata);

/// <summary>Lists a model from its headers, also one that nothing else here can use.</summary>
public static class Inspection
{
    public static InspectionReport Run(string model, bool withTensors, bool withMetadata, RunContext context)
    {
        ModelLocation location = ModelLocator.Locate(context.Files, model);
        (List<InspectedTensor> tensors, List<long> counts, Dictionary<string, string> metadata, string container) =
            location.Kind == ModelKind.Gguf ? ListGguf(location, context) : ListFolder(location, context);

        Checkpoint? checkpoint = null;
        string? problem = null;
        try
        {
            checkpoint = Checkpoint.Open(model, context);
        }
        catch (QuantException error)
        {
            problem = error.Message;
        }

        using (checkpoint)
        {
            if (checkpoint?.Raw is PackedCheckpoint packed)
            {
                // The matrices, not the words that they are packed in.
                container = checkpoint.ContainerName;
                tensors = [.. packed.Tensors.Select(entry => packed.FindStored(entry.Name)!).Select(entry => new InspectedTensor(entry.Name, entry.Type.Name, entry.Shape.Dimensions.ToArray(), entry.ByteLength, Path.GetFileName(checkpoint.WeightPaths[entry.FileIndex])))];
                counts = [.. packed.Tensors.Select(entry => entry.Shape.ValueCount)];
            }

            long parameters = counts.Sum();
            long bytes = tensors.Sum(tensor => tensor.Bytes ?? 0);
            return new InspectionReport(
                model,
                container,
                checkpoint?.Config.Architecture,
                checkpoint?.Config.NumHiddenLayers,
                checkpoint?.Config.HiddenSize,
                checkpoint?.Config.NumAttentionHeads,
                checkpoint?.Config.NumKeyValueHeads,
                checkpoint?.Config.VocabSize,
                checkpoint?.Config.MaxPositionEmbeddings,
                checkpoint?.Config.TieWordEmbeddings,
                checkpoint is { Config.IsMoe: true } ? checkpoint.Config.NumExperts : null,
                parameters,
                bytes,
                parameters == 0 ? 0 : 8.0 * bytes / parameters,
                Census(tensors, counts),
                problem,
                withTensors ? tensors : null,
                withMetadata ? metadata : null);
        }
    }

    private static (List<InspectedTensor>, List<long>, Dictionary<string, string>, string) ListGguf(ModelLocation location, RunContext context)
    {
        IReadOnlyList<GgufPart> parts = GgufFile.Inspect(context.Files, location.Path, context.ReadOptions);
        List<InspectedTensor> tensors = [];
        List<long> counts = [];
        foreach (GgufPart part in parts)
        {
            foreach (GgufTensorInfo tensor in part.Tensors)
            {
                long? bytes = tensor.Type?.Element.ByteCount(tensor.Shape.ValueCount);
                tensors.Add(new InspectedTensor(tensor.Name, tensor.Type?.Name ?? $"type {tensor.TypeId}", tensor.Shape.Dimensions.ToArray(), bytes, Path.GetFileName(part.Path)));
                counts.Add(tensor.Shape.ValueCount);
            }
        }

        Dictionary<string, string> metadata = new(StringComparer.Ordinal);
        foreach ((string key, GgufValue value) in parts[0].Metadata) metadata[key] = value.ToString();
        return (tensors, counts, metadata, $"GGUF v{parts[0].Version}{(parts.Count > 1 ? $" in {parts.Count} parts" : "")}");
    }

    private static (List<InspectedTensor>, List<long>, Dictionary<string, string>, string) ListFolder(ModelLocation location, RunContext context)
    {
        IFileLayer files = location.Kind == ModelKind.BuiltIn ? BuiltInModels.Instance : context.Files;
        using SafetensorsCheckpoint weights = Checkpoint.OpenWeights(location, files, context);
        Dictionary<string, string> metadata = new(StringComparer.Ordinal);
        foreach ((string key, string value) in weights.Files[0].Metadata) metadata[key] = TextEscape.Escape(value);
        string config = Path.Combine(location.Path, "config.json");
        if (files.FileExists(config)) metadata["config.json"] = Encoding.UTF8.GetString(files.ReadAllBytes(config, context.Limits.JsonFileBytes));
        return (
            [.. weights.Tensors.Select(entry => new InspectedTensor(entry.Name, entry.Type.Name, entry.Shape.Dimensions.ToArray(), entry.ByteLength, Path.GetFileName(weights.Files[entry.FileIndex].Path)))],
            [.. weights.Tensors.Select(entry => entry.Shape.ValueCount)],
            metadata,
            $"safetensors{(weights.Files.Count > 1 ? $" in {weights.Files.Count} shards" : "")}");
    }

    private static TypeCensus[] Census(List<InspectedTensor> tensors, List<long> counts) =>
    [
        .. tensors.Zip(counts).GroupBy(pair => pair.First.Type, StringComparer.Ordinal)
            .Select(group => new TypeCensus(group.Key, group.Count(), group.Sum(pair => pair.Second), group.Sum(pair => pair.First.Bytes ?? 0)))
            .OrderByDescending(census => census.Bytes),
    ];
}
