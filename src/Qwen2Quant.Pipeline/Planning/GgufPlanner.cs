using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>Plans a GGUF file: names and order of llama-quantize, metadata of mainline's converter.</summary>
public static class GgufPlanner
{
    private const string FileTypeKey = "general.file_type";
    private const string Extension = ".gguf";
    private const string LayerPrefix = "blk.";

    /// <summary>Row types by name of the general.file_type numbers that plain conversions have (LLAMA_FTYPE).</summary>
    private static readonly Dictionary<string, uint> PlainFileTypes = new(StringComparer.Ordinal) { ["F32"] = 0, ["F16"] = 1, ["BF16"] = 32, ["Q8_0"] = 7 };

    /// <summary>Plans a conversion to one type; null keeps each tensor's own type where GGUF has it, else the first matrix's.</summary>
    public static ConversionPlan PlanConversion(Checkpoint source, ElementType? type, string target, RunContext context)
    {
        if (type is { CanEncode: false }) throw new ArgumentException("the type cannot be written", nameof(type));
        List<QuantEvent> events = [];
        ElementType matrices = type ?? FirstMatrixType(source);
        List<PlanItem> items = [];
        foreach (GgufTensor tensor in GgufNames.Plan(source.Tensors.Catalogue))
        {
            TensorEntry[] parts = Parts(source, tensor);
            // Halves hold the values of packed integers, whose scales are halves, closer than bfloat16 does.
            ElementType plain = type is null && StoredType(source, parts[0]).IsQuantized ? PlainTypes.F16 : matrices;
            ElementType requested = type is null && source.Gguf is not null ? parts[0].Type : tensor.IsKeptF32 ? PlainTypes.F32 : plain;
            bool fits = tensor.Shape.RowLength % requested.ValuesPerBlock == 0;
            if (!fits) events.Add(TypeChooser.Substitution(tensor.Name, tensor.Shape, requested, PlainTypes.F16));
            items.Add(Item(tensor, parts, requested, fits ? requested : PlainTypes.F16));
        }

        RequireNoRequantizing(items, source);
        PlanningNotes.AddLost(events, source);
        GgufMetadata metadata = type is null && source.Gguf is { } gguf ? gguf.Metadata.Clone() : Metadata(source, PlainFileTypes.GetValueOrDefault(matrices.Name), context);
        if (type is { IsQuantized: false })
        {
            // They are about codes that are no longer there.
            foreach (string key in metadata.Select(pair => pair.Key).Where(key => key.StartsWith("quantize.", StringComparison.Ordinal)).ToArray()) metadata.Remove(key);
        }

        return Finish(items, metadata, 1, target, events);
    }

    /// <summary>Plans a quantization by a recipe. The plan has an obstacle where it needs an importance matrix or a type that cannot be written.</summary>
    /// <exception cref="QuantException">Options contradict one another, rows suit neither a type nor a fallback, or the source is quantized already.</exception>
    public static ConversionPlan PlanQuantization(Checkpoint source, Recipe recipe, QuantizationOptions options, string target, RunContext context)
    {
        if (recipe.IsCopy && options.Types.ChangesTypes) throw new QuantException(ErrorKind.Usage, $"{recipe.Name} changes no type, and an option asks for one") { Remedy = "Name a scheme such as gguf:Q8_0, or leave the option out." };
        List<QuantEvent> events = [];
        ModelTraits model = new(source.Config, GgufNames.Plan(source.Tensors.Catalogue), options.HasImatrix);
        TypeChooser chooser = new(recipe, options.Types, model);
        List<PlanItem> items = [];
        foreach (GgufTensor tensor in model.Tensors)
        {
            TensorEntry[] parts = Parts(source, tensor);
            bool keepsType = source.Gguf is not null || (!tensor.IsKeptF32 && GgmlTypes.Of(parts[0].Type) is not null);
            (ElementType requested, ElementType actual) = chooser.Choose(tensor.Name, tensor.Shape, keepsType ? parts[0].Type : PlainTypes.F32, events);
            items.Add(Item(tensor, parts, requested, actual));
        }

        if (!options.AllowRequantize) RequireNoRequantizing(items, source);
        PlanningNotes.Add(events, items, recipe, options, model);
        PlanningNotes.AddLost(events, source);
        int partCount = options.KeepSplit && source.Gguf is { } gguf ? gguf.Parts.Count : 1;
        if (options.KeepSplit && partCount == 1) events.Add(new QuantEvent("not-split", "--keep-split has no effect: the source is not a split GGUF file"));
        GgufMetadata metadata = Metadata(source, FileType(source, recipe), context);
        options.Importance?.WriteMetadata(metadata);
        foreach (MetadataOverride item in options.Metadata) metadata.Set(item.Key, item.Value);
        return Finish(items, metadata, partCount, target, events) with { Importance = options.Importance, Obstacle = FindObstacle(recipe, options, items) };
    }

    private static TensorEntry[] Parts(Checkpoint source, GgufTensor tensor) => [.. tensor.Parts.Select(part => source.Tensors.Find(part.Name)!)];

    private static PlanItem Item(GgufTensor tensor, TensorEntry[] parts, ElementType requested, ElementType actual) =>
        new(0, new PlannedTensor(new OutputTensor(tensor.Name, actual, tensor.Shape), 0), requested, parts);

    internal static void RequireNoRequantizing(IReadOnlyList<PlanItem> items, Checkpoint source)
    {
        PlanItem? requantized = items.FirstOrDefault(item => item.IsRequantized || (item.Target.Tensor.Type.IsQuantized && !item.IsCopy && item.Parts.Any(part => StoredType(source, part).IsQuantized)));
        if (requantized is null) return;
        throw new QuantException(ErrorKind.InvalidInput, "the source is quantized already, and quantizing again adds to its error")
        {
            Rule = PipelineRules.SourceNotQuantized,
            Path = source.Location.Path,
            Tensor = requantized.Name,
            Found = StoredType(source, requantized.Parts[0]).Name,
            Expected = $"F32, F16, BF16 or {requantized.Target.Tensor.Type.Name}",
            Remedy = "Use the original model, or quantize with --allow-requantize.",
        };
    }

    /// <summary>The type of the codes, also where the checkpoint hands out decoded values.</summary>
    private static ElementType StoredType(Checkpoint source, TensorEntry part) => source.Raw.FindStored(part.Name)?.Type ?? part.Type;

    private static QuantException? FindObstacle(Recipe recipe, QuantizationOptions options, List<PlanItem> items)
    {
        PlanItem[] encoded = [.. items.Where(item => !item.IsCopy)];
        PlanItem? blind = encoded.FirstOrDefault(item => !(options.IsSolved && item.Name.StartsWith(LayerPrefix, StringComparison.Ordinal)) && options.Importance?.TokensSeen(item.Name) is null && RecipeBook.BuiltIn.NeedsImatrix(item.Name, item.Target.Tensor.Type));
        if (blind is not null || (recipe.NeedsImatrix && !options.HasImatrix))
        {
            return new QuantException(ErrorKind.Usage, blind is null ? $"{recipe.Name} needs an importance matrix" : $"{blind.Target.Tensor.Type.Name} needs an importance matrix{(options.HasImatrix ? " with an entry for the tensor" : "")}")
            {
                Tensor = blind?.Name,
                Remedy = "Measure one with `qwen2quant calibrate MODEL --data TEXT --out FILE` and pass --imatrix FILE, or pass --calibration TEXT, which measures it first.",
            };
        }

        PlanItem? unwritable = encoded.FirstOrDefault(item => !item.Target.Tensor.Type.CanEncode);
        return unwritable is null ? null : new QuantException(ErrorKind.Usage, "this type is read, not written")
        {
            Tensor = unwritable.Name,
            Found = unwritable.Target.Tensor.Type.Name,
            Expected = string.Join(", ", GgmlTypes.All.Where(known => known.Element.CanEncode).Select(known => known.Name)),
        };
    }

    internal static ElementType FirstMatrixType(Checkpoint source)
    {
        ElementType? first = source.Tensors.Tensors
            .Where(entry => entry.Shape.Rank >= 2)
            .Select(entry => entry.Type)
            .FirstOrDefault(type => ReferenceEquals(type, PlainTypes.BF16) || ReferenceEquals(type, PlainTypes.F16) || ReferenceEquals(type, PlainTypes.F32));
        return first ?? PlainTypes.F16;
    }

    /// <summary>The output's general.file_type: the recipe's; the source's where the recipe keeps its types; else none, and readers then look at the tensors.</summary>
    private static uint? FileType(Checkpoint source, Recipe recipe)
    {
        if (recipe.FileType is { } own) return (uint)own;
        if (recipe.Type is not null) return null;
        if (source.Gguf is not { } gguf) return PlainFileTypes.GetValueOrDefault(FirstMatrixType(source).Name);
        return gguf.Metadata.TryGetInteger(FileTypeKey, out uint stated) ? stated : null;
    }

    private static GgufMetadata Metadata(Checkpoint source, uint? fileType, RunContext context)
    {
        const uint quantizationVersion = 2;
        GgufMetadata metadata;
        if (source.Gguf is { } gguf)
        {
            metadata = gguf.Metadata.Clone();
            metadata.Set(GgufKeys.QuantizationVersion, GgufValue.Scalar(quantizationVersion));
            if (fileType is { } number) metadata.Set(FileTypeKey, GgufValue.Scalar(number));
        }
        else
        {
            metadata = new GgufMetadata();
            GgufGeneralMetadata.Write(metadata, source.Config, source.Generation, source.Location.DisplayName, source.FindLicense(context), source.Tensors.Catalogue.ParameterCount);
            GgufModelMetadata.WriteConfig(metadata, source.Config, fileType ?? 0);
            metadata.Set(GgufKeys.QuantizationVersion, GgufValue.Scalar(quantizationVersion));
            GgufTokenizerMetadata.Write(metadata, source.Tokenizer, source.Config.VocabSize);
        }

        if (fileType is null) metadata.Remove(FileTypeKey);
        return metadata;
    }

    /// <param name="partCount">1 for one file, or the number of the source's parts, which are then the output's.</param>
    private static ConversionPlan Finish(List<PlanItem> items, GgufMetadata metadata, int partCount, string target, List<QuantEvent> events)
    {
        string name = Path.GetFileName(target);
        IReadOnlyList<PlannedFile> files;
        if (partCount == 1)
        {
            files = [GgufPlan.Create(metadata, [.. items.Select(item => item.Target.Tensor)], name)];
        }
        else
        {
            string prefix = name.EndsWith(Extension, StringComparison.OrdinalIgnoreCase) ? name[..^Extension.Length] : name;
            items = [.. items.OrderBy(item => item.Parts[0].FileIndex).ThenBy(item => item.Parts[0].ByteOffset)];
            files = GgufPlan.CreateSplit(metadata, [.. Enumerable.Range(0, partCount).Select(part => items.Where(item => item.Parts[0].FileIndex == part).Select(item => item.Target.Tensor).ToArray())], prefix);
            target = Path.Combine(Path.GetDirectoryName(target) ?? "", files[0].Name);
        }

        IEnumerable<(int File, PlannedTensor Tensor)> planned = files.SelectMany((file, index) => file.Tensors.Select(tensor => (index, tensor)));
        return new ConversionPlan
        {
            Target = target,
            IsFolder = false,
            Files = files,
            Companions = [],
            Items = [.. items.Zip(planned, (item, place) => item with { FileIndex = place.File, Target = place.Tensor })],
            Events = events,
        };
    }
}
