using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>The conversions that tests run, each in one call.</summary>
internal static class Conversions
{
    public static ConversionReport ToGguf(string model, string target, ElementType? type = null, RunContext? context = null, ConversionOptions? options = null)
    {
        context ??= new RunContext();
        using Checkpoint source = Checkpoint.Open(model, context);
        return new Conversion(source, GgufPlanner.PlanConversion(source, type, target, context), options ?? new ConversionOptions("gguf"), context).Run();
    }

    public static ConversionReport ToFolder(string model, string target, ElementType? type = null, long maxShardBytes = long.MaxValue, RunContext? context = null)
    {
        context ??= new RunContext();
        using Checkpoint source = Checkpoint.Open(model, context);
        ConversionPlan plan = FolderPlanner.PlanConversion(source, type, "safetensors", target, maxShardBytes, context);
        return new Conversion(source, plan, new ConversionOptions("safetensors"), context).Run();
    }

    public static ConversionReport Quantize(
        string model, string target, string recipe, RunContext? context = null, ConversionOptions? options = null, QuantizationOptions? quantization = null)
    {
        context ??= new RunContext();
        using Checkpoint source = Checkpoint.Open(model, context);
        ConversionPlan plan = GgufPlanner.PlanQuantization(source, RecipeBook.BuiltIn.Find(recipe)!, quantization ?? new QuantizationOptions(), target, context);
        return new Conversion(source, plan, options ?? new ConversionOptions("gguf:" + recipe), context).Run();
    }

    public static ConversionReport ToGptq(
        string model, string target, string scheme, RunContext? context = null, ConversionOptions? options = null, QuantizationOptions? quantization = null, long maxShardBytes = long.MaxValue) =>
        ToPacked(model, target, "gptq:" + scheme, context, options, quantization, maxShardBytes);

    /// <summary>Quantizes to any packed scheme.</summary>
    public static ConversionReport ToPacked(
        string model, string target, string scheme, RunContext? context = null, ConversionOptions? options = null, QuantizationOptions? quantization = null, long maxShardBytes = long.MaxValue)
    {
        context ??= new RunContext();
        using Checkpoint source = Checkpoint.Open(model, context);
        ConversionPlan plan = PackedPlanner.Plan(source, PackedScheme.Parse(scheme)!, quantization ?? new QuantizationOptions(), target, maxShardBytes, context);
        return new Conversion(source, plan, options ?? new ConversionOptions(scheme), context).Run();
    }

    /// <summary>Merges, or splits by a limit.</summary>
    public static ContainerReport Copy(string path, string target, ContainerLimit? limit = null, RunContext? context = null)
    {
        using ContainerCopy copy = ContainerCopy.Open(path, limit, target, context ?? new RunContext());
        return copy.Run(force: false, dryRun: false);
    }

    /// <summary>The same importance for every column, for the tensors whose names hold <paramref name="part"/>.</summary>
    public static Importance EvenImportance(string model, string part = "")
    {
        using Checkpoint source = Checkpoint.Open(model, new RunContext());
        IEnumerable<ImatrixEntry> entries = GgufNames.Plan(source.Tensors.Catalogue).Where(tensor => tensor.Name.Contains(part, StringComparison.Ordinal))
            .Select(tensor => new ImatrixEntry(tensor.Name, [.. Enumerable.Repeat(1f, (int)(tensor.Shape.RowLength * tensor.Parts.Count))], [1]));
        return Importance.Create(new Imatrix([.. entries.OrderBy(entry => entry.Name, StringComparer.Ordinal)], [], 1, 512), source.Tensors.Catalogue, null, ImportanceFilter.All, strict: false, new RunContext());
    }
}
