using System.Globalization;
using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>
/// Plans a folder whose linears of layers are packed as a scheme says; embedding, output, norms and routers stay in the source's 16-bit type, unless the scheme packs them too.
/// </summary>
public static class PackedPlanner
{
    /// <summary>A row length that every scheme has a type for.</summary>
    private const int ShortestRow = 128;

    /// <exception cref="QuantException">No linear suits the scheme, or the source is quantized already.</exception>
    public static ConversionPlan Plan(Checkpoint source, PackedScheme scheme, QuantizationOptions options, string target, long maxShardBytes, RunContext context)
    {
        ElementType plain = PlainType(source), scales = options.ScaleType ?? plain;
        List<QuantEvent> events = [];
        FusedUnits units = new(source.Tensors.Catalogue, scheme, options.Modules, (tensor, asked) => !StaysPlain(tensor) && asked.TypeFor(tensor.Shape.RowLength, scales, new Magnitudes(1, 1)) is { } type && asked.Layout.Fits(type, tensor.Shape));
        IReadOnlyDictionary<string, float> largest = units.FindLargest(source.Tensors, context);
        List<PlanItem> items = [];
        List<OutputTensor> outputs = [];
        foreach (CanonicalTensor tensor in source.Tensors.Catalogue.Tensors)
        {
            (ElementType requested, ElementType actual) = StaysPlain(tensor) ? (plain, plain) : Choose(tensor, Stored(tensor).Type, plain, scales, units, new Magnitudes(largest.GetValueOrDefault(tensor.Name), LargestInput(tensor, options)));
            if (!ReferenceEquals(requested, actual)) events.Add(Unfit(tensor, units.Asked(tensor.Name) ?? scheme, actual));
            (string name, int? expert) = GgufNames.FromHuggingFace(tensor.Name)!.Value;
            items.Add(new PlanItem(0, new PlannedTensor(new OutputTensor(tensor.Name, actual, tensor.Shape), 0), requested, [source.Tensors.Find(tensor.Name)!])
            {
                ImportanceOf = (name, expert ?? 0, expert is null ? 1 : source.Config.NumExperts),
            });
            outputs.AddRange(actual.IsQuantized ? Outputs(scheme.Layout, tensor, actual, source.Config.NumExperts) : [new OutputTensor(tensor.Name, actual, tensor.Shape)]);
        }

        if (units.Packed.Count == 0) throw NoneFits(source, scheme);
        if (!options.AllowRequantize) GgufPlanner.RequireNoRequantizing(items, source);
        foreach (ModuleOverride unused in options.Modules.Where(rule => !units.Linears.Exists(tensor => rule.Pattern.IsMatch(tensor.Name.ToLowerInvariant()))))
        {
            events.Add(new QuantEvent("tensor-type-unused", $"--tensor-type {unused.Pattern} matches no linear of a layer"));
        }

        events.AddRange(scheme.ReaderNotes.Select(note => new QuantEvent("few-readers", $"{scheme}: {note}")));
        if (scheme.IsCutInParallel) events.AddRange(TensorParallel.Check(source.Config, units));
        SafetensorsPlan files = SafetensorsPlan.Create(outputs, new Dictionary<string, string> { ["format"] = scheme.FileFormat }, maxShardBytes, scheme.CountsParameters ? source.Tensors.Catalogue.ParameterCount : null);
        items = Place(items, files, scheme);
        JsonObject config = FolderPlanner.Config(source, plain, context);
        IEnumerable<CompanionFile> ownFiles = PackedConfiguration.Apply(scheme, units, source.Tensors.Catalogue, options, config);
        List<CompanionFile> companions = [new("config.json", FolderPlanner.WriteJson(config)), .. ownFiles, .. FolderPlanner.Companions(source, context)];
        companions.Add(new CompanionFile(ModelCard.FileName, ModelCard.Write(source.Location.DisplayName, source.FindLicense(context), scheme.ToString(), Conversion.Version, items, scheme.LibraryName, scheme.Commands(Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(target)))))));
        if (files.Index is not null) companions.Add(new CompanionFile(SafetensorsPlan.IndexFileName, files.Index));
        bool StaysPlain(CanonicalTensor tensor) => options.KeepsPlain && tensor.Shape.Rank > 1 && !Stored(tensor).Type.IsQuantized;

        TensorEntry Stored(CanonicalTensor tensor) => source.Raw.FindStored(tensor.Name) ?? source.Tensors.Find(tensor.Name)!;

        return new ConversionPlan
        {
            Target = target,
            IsFolder = true,
            Files = files.Files,
            Companions = companions,
            Items = items,
            Importance = options.Importance,
            Events = events,
        };
    }

    /// <summary>The 16-bit type of what stays plain: that of the source's plain matrices, or where all are quantized of its vectors.</summary>
    private static ElementType PlainType(Checkpoint source)
    {
        TensorEntry[] plain = [.. source.Tensors.Tensors.Where(entry => !(source.Raw.FindStored(entry.Name) ?? entry).Type.IsQuantized)];
        TensorEntry? first = plain.FirstOrDefault(entry => entry.Shape.Rank > 1) ?? plain.FirstOrDefault();
        return ReferenceEquals(first?.Type, PlainTypes.BF16) ? PlainTypes.BF16 : PlainTypes.F16;
    }

    /// <summary>Experts that saw no token take the largest of all tokens; 0 where no inputs were looked at.</summary>
    private static float LargestInput(CanonicalTensor tensor, QuantizationOptions options)
    {
        if (options.LargestInputs is not { } known || LinearInput.Of(tensor) is not { } input) return 0;
        return known.TryGetValue(input, out float largest) ? largest : known.Where(pair => pair.Key.Layer == input.Layer && (pair.Key.Kind == input.Kind || pair.Key.Kind == LinearInputKind.FeedForward)).Max(pair => pair.Value);
    }

    private static (ElementType Requested, ElementType Actual) Choose(CanonicalTensor tensor, ElementType stored, ElementType plain, ElementType scales, FusedUnits units, Magnitudes largest)
    {
        if (units.Asked(tensor.Name) is { } scheme)
        {
            // A requested type that no row of this length has is shown by that of a group.
            ElementType requested = scheme.Takes(stored, scales) ? stored : scheme.TypeFor(tensor.Shape.RowLength, scales, largest) ?? scheme.TypeFor(ShortestRow, scales, largest)!;
            return (requested, units.Packed.Contains(tensor.Name) ? requested : plain);
        }

        if (units.Scheme.PacksAll && tensor.Role is TensorRole.TokenEmbedding or TensorRole.Output && units.Scheme.TypeFor(tensor.Shape.RowLength, scales, largest) is { } whole)
        {
            return (whole, units.Scheme.Layout.Fits(whole, tensor.Shape) ? whole : plain);
        }

        bool isPackedBias = tensor.Name.EndsWith(".bias", StringComparison.Ordinal) && units.Packed.Contains($"{tensor.Name[..^".bias".Length]}.weight");
        ElementType type = isPackedBias ? units.Scheme.BiasType ?? plain : plain;
        return (type, type);
    }

    /// <summary>The tensors of one matrix; those of a stack come with its first expert.</summary>
    private static IEnumerable<OutputTensor> Outputs(PackedLayout layout, CanonicalTensor tensor, ElementType type, int expertCount)
    {
        if (layout.StackOf(tensor.Name) is not var (stack, index)) return layout.Parts(tensor.Name, type, tensor.Shape);
        return index > 0 ? [] : layout.Parts(stack, type, tensor.Shape).Select(part => part with { Shape = new Shape([expertCount, .. part.Shape.Dimensions]) });
    }

    private static List<PlanItem> Place(List<PlanItem> items, SafetensorsPlan files, PackedScheme scheme)
    {
        Dictionary<string, (int FileIndex, PlannedTensor Tensor)> places = files.Files.SelectMany((file, index) => file.Tensors.Select(tensor => (index, tensor)))
            .ToDictionary(place => place.tensor.Tensor.Name, StringComparer.Ordinal);
        return [.. items.Select(item =>
        {
            OutputTensor tensor = item.Target.Tensor;
            if (!tensor.Type.IsQuantized) return item with { FileIndex = places[tensor.Name].FileIndex, Target = places[tensor.Name].Tensor };
            (string name, int index) = scheme.Layout.StackOf(tensor.Name) ?? (tensor.Name, 0);
            (int FileIndex, PlannedTensor Tensor)[] parts = [.. scheme.Layout.Parts(name, tensor.Type, tensor.Shape)
                .Select(part => (places[part.Name].FileIndex, new PlannedTensor(part, places[part.Name].Tensor.ByteOffset + (index * part.ByteLength))))];
            (int fileIndex, PlannedTensor codes) = parts[0];
            return item with { FileIndex = fileIndex, Target = new PlannedTensor(tensor, codes.ByteOffset), Scattered = scheme.Layout.Target(tensor.Type, tensor.Shape, parts) };
        })];
    }

    private static QuantEvent Unfit(CanonicalTensor tensor, PackedScheme scheme, ElementType actual) => new(
        "type-fallback",
        $"{tensor.Name}: it, or a matrix that readers fuse with it, has no whole number of groups of {scheme.GroupSize}{Outputs(scheme, " or of ")}; written as {actual.Name}",
        tensor.Name,
        IsSubstitution: true);

    private static string Outputs(PackedScheme scheme, string before) => scheme.Layout.OutputMultiple == 1 ? "" : string.Create(CultureInfo.InvariantCulture, $"{before}{scheme.Layout.OutputMultiple} outputs");

    private static QuantException NoneFits(Checkpoint source, PackedScheme scheme) => new(ErrorKind.Usage, "no linear of the model suits the scheme")
    {
        Path = source.Location.Path,
        Found = $"hidden size {source.Config.HiddenSize}, intermediate size {source.Config.IntermediateSize}",
        Expected = scheme.GroupSize == -1 ? "multiples of 32" : $"multiples of {scheme.GroupSize}{Outputs(scheme, ", ")}",
        Remedy = "Choose smaller groups, or gguf:Q4_0.",
    };
}
