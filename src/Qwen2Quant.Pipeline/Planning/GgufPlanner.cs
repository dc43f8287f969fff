using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>Plans a GGUF file: names and order of llama-quantize, metadata of mainline's converter.</summary>
public static class GgufPlanner
{
    /// <summary>Row types by name of the general.file_type numbers that plain conversions have (LLAMA_FTYPE).</summary>
    private static readonly Dictionary<string, uint> PlainFileTypes = new(StringComparer.Ordinal) { ["F32"] = 0, ["F16"] = 1, ["BF16"] = 32, ["Q8_0"] = 7 };

    /// <summary>Plans a conversion to one type; null keeps each tensor's own type where GGUF has it, else the first matrix's.</summary>
    public static ConversionPlan PlanConversion(Checkpoint source, ElementType? type, string target, RunContext context)
    {
        if (type is { CanEncode: false }) throw new ArgumentException("the type cannot be written", nameof(type));
        List<QuantEvent> events = [];
        RecipeBook book = RecipeBook.BuiltIn;
        ElementType matrices = type ?? FirstMatrixType(source);
        TypeChooser fallback = new(book, book.Find(matrices.Name) ?? book.Recipes[0], new RecipeOptions(), source.Config.TieWordEmbeddings, 0);
        List<PlanItem> items = [];
        foreach (GgufTensor tensor in GgufNames.Plan(source.Tensors.Catalogue))
        {
            TensorEntry[] parts = Parts(source, tensor);
            ElementType requested = type is null && source.Gguf is not null ? parts[0].Type : tensor.IsKeptF32 ? PlainTypes.F32 : matrices;
            items.Add(Item(tensor, parts, requested, fallback.Fit(tensor.Name, tensor.Shape, requested, events)));
        }

        RequireNoRequantizing(items, source);
        uint? fileType = type is null && source.Gguf is not null ? null : PlainFileTypes.GetValueOrDefault(matrices.Name);
        return Finish(source, items, Metadata(source, fileType, context), target, events);
    }

    /// <summary>Plans a quantization by a recipe.</summary>
    /// <param name="importance">Weights for the encoders; a tensor that is quantized without them is an event.</param>
    public static ConversionPlan PlanQuantization(
        Checkpoint source, Recipe recipe, RecipeOptions options, bool allowRequantize, string target, RunContext context, Importance? importance = null)
    {
        List<QuantEvent> events = [];
        TypeChooser chooser = new(RecipeBook.BuiltIn, recipe, options, source.Config.TieWordEmbeddings, source.Config.IsMoe ? source.Config.NumExperts : 0);
        List<PlanItem> items = [];
        foreach (GgufTensor tensor in GgufNames.Plan(source.Tensors.Catalogue))
        {
            TensorEntry[] parts = Parts(source, tensor);
            bool keepsType = source.Gguf is not null || (!tensor.IsKeptF32 && GgmlTypes.Of(parts[0].Type) is not null);
            (ElementType requested, ElementType actual) = chooser.Choose(tensor.Name, tensor.Shape, keepsType ? parts[0].Type : PlainTypes.F32, events);
            items.Add(Item(tensor, parts, requested, actual));
        }

        if (!allowRequantize) RequireNoRequantizing(items, source);
        foreach (PlanItem item in items.Where(IsRequantized))
        {
            events.Add(new QuantEvent("requantized", $"{item.Name}: quantized again, from {item.Parts[0].Type.Name} to {item.Target.Tensor.Type.Name}; quantize the original model for a smaller error", item.Name));
        }

        GgufMetadata metadata = Metadata(source, (uint)recipe.FileType, context);
        importance?.WriteMetadata(metadata);
        foreach (PlanItem item in items.Where(item => importance is { } weights && item.Target.Tensor.Type.IsQuantized && !item.IsCopy && weights.TokensSeen(item.Name) is null))
        {
            events.Add(new QuantEvent("imatrix-missing", $"{item.Name}: the importance matrix has no entry; all columns weigh the same", item.Name));
        }

        return Finish(source, items, metadata, target, events) with { Importance = importance };
    }

    private static TensorEntry[] Parts(Checkpoint source, GgufTensor tensor) => [.. tensor.Parts.Select(part => source.Tensors.Find(part.Name)!)];

    private static PlanItem Item(GgufTensor tensor, TensorEntry[] parts, ElementType requested, ElementType actual) =>
        new(0, new PlannedTensor(new OutputTensor(tensor.Name, actual, tensor.Shape), 0), requested, parts);

    private static bool IsRequantized(PlanItem item) => item.Target.Tensor.Type.IsQuantized && !item.IsCopy && item.Parts.Any(part => part.Type.IsQuantized);

    private static void RequireNoRequantizing(IReadOnlyList<PlanItem> items, Checkpoint source)
    {
        PlanItem? requantized = items.FirstOrDefault(IsRequantized);
        if (requantized is null) return;
        throw new QuantException(ErrorKind.InvalidInput, "the source is quantized already, and quantizing again adds to its error")
        {
            Rule = PipelineRules.SourceNotQuantized,
            Path = source.Location.Path,
            Tensor = requantized.Name,
            Found = requantized.Parts[0].Type.Name,
            Expected = $"F32, F16, BF16 or {requantized.Target.Tensor.Type.Name}",
            Remedy = "Use the original model, or quantize with --allow-requantize.",
        };
    }

    private static ElementType FirstMatrixType(Checkpoint source)
    {
        ElementType? first = source.Tensors.Tensors
            .Where(entry => entry.Shape.Rank >= 2)
            .Select(entry => entry.Type)
            .FirstOrDefault(type => ReferenceEquals(type, PlainTypes.BF16) || ReferenceEquals(type, PlainTypes.F16) || ReferenceEquals(type, PlainTypes.F32));
        return first ?? PlainTypes.F16;
    }

    /// <summary>Metadata of the output; <paramref name="fileType"/> null leaves a GGUF source's as they are.</summary>
    private static GgufMetadata Metadata(Checkpoint source, uint? fileType, RunContext context)
    {
        const uint quantizationVersion = 2;
        GgufMetadata metadata;
        if (source.Gguf is { } gguf)
        {
            metadata = gguf.Metadata.Clone();
            if (fileType is null) return metadata;
            metadata.Set(GgufKeys.QuantizationVersion, GgufValue.Scalar(quantizationVersion));
            metadata.Set("general.file_type", GgufValue.Scalar(fileType.Value));
            return metadata;
        }

        metadata = new GgufMetadata();
        GgufGeneralMetadata.Write(metadata, source.Config, source.Generation, source.Location.DisplayName, source.FindLicense(context), source.Tensors.Catalogue.ParameterCount);
        GgufModelMetadata.WriteConfig(metadata, source.Config, fileType!.Value);
        metadata.Set(GgufKeys.QuantizationVersion, GgufValue.Scalar(quantizationVersion));
        GgufTokenizerMetadata.Write(metadata, source.Tokenizer, source.Config.VocabSize);
        return metadata;
    }

    private static ConversionPlan Finish(Checkpoint source, List<PlanItem> items, GgufMetadata metadata, string target, List<QuantEvent> events)
    {
        PlannedFile file = GgufPlan.Create(metadata, [.. items.Select(item => item.Target.Tensor)], Path.GetFileName(target));
        return new ConversionPlan
        {
            Target = target,
            IsFolder = false,
            Files = [file],
            Companions = [],
            Items = [.. items.Zip(file.Tensors, (item, planned) => item with { Target = planned })],
            Events = events,
        };
    }
}
