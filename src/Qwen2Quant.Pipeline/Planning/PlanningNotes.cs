using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>What a user should know of a plan that does what was asked: options without effect, errors that add up, a scheme that saves little.</summary>
internal static class PlanningNotes
{
    /// <summary>A scheme of more bits is worth naming when its file is larger by no more than this.</summary>
    private const double SmallDifference = 1.05;

    public static void Add(List<QuantEvent> events, IReadOnlyList<PlanItem> items, Recipe recipe, QuantizationOptions options, ModelTraits model)
    {
        if (options.Types.LeaveOutputTensor && model.IsTied)
        {
            events.Add(new QuantEvent("no-output-tensor", "--leave-output-tensor has no effect: the model has no output.weight, its token embedding serves as one"));
        }

        foreach (TensorTypeOverride unused in options.Types.TensorTypes.Where(rule => !items.Any(item => rule.Pattern.IsMatch(item.Name.ToLowerInvariant()))))
        {
            events.Add(new QuantEvent("tensor-type-unused", $"--tensor-type {unused.Pattern}={unused.Type.Name} matches no tensor"));
        }

        foreach (PlanItem item in items.Where(item => item.IsRequantized))
        {
            events.Add(new QuantEvent("requantized", $"{item.Name}: quantized again, from {item.Parts[0].Type.Name} to {item.Target.Tensor.Type.Name}; quantize the original model for a smaller error", item.Name));
        }

        foreach (PlanItem item in items.Where(item => options.Importance is { } weights && item.Target.Tensor.Type.IsQuantized && !item.IsCopy && weights.TokensSeen(item.Name) is null))
        {
            events.Add(new QuantEvent("imatrix-missing", $"{item.Name}: the importance matrix has no entry; all columns weigh the same", item.Name));
        }

        bool hasFallbacks = events.Exists(planned => planned.IsSubstitution);
        if (hasFallbacks && !options.Types.ChangesTypes && FindBetter(recipe, items, model) is var (better, bytes))
        {
            long own = items.Sum(item => item.Target.Tensor.ByteLength);
            events.Add(new QuantEvent("small-saving", string.Create(CultureInfo.InvariantCulture, $"{recipe.Name} saves little on this model, whose rows suit few types: {own / 1e6:0.0} MB; {better.Name}, with more bits for most tensors, is {bytes / 1e6:0.0} MB")));
        }
    }

    /// <summary>What a folder's configuration says of attention and GGUF has no keys for: the file's readers compute otherwise on long texts.</summary>
    public static void AddLost(List<QuantEvent> events, Checkpoint source)
    {
        if (source.Gguf is not null) return;
        if (source.Config.UseSlidingWindow) Add("sliding windows", $"over {source.Config.SlidingWindow} tokens");
        if (source.Config.RopeScaling is { Type: RopeScalingType.Dynamic }) Add("dynamic rope scaling", $"over {source.Config.MaxPositionEmbeddings} tokens");
        if (source.Config.DualChunkAttention is { } chunks) Add("dual chunk attention", $"over {chunks.Stride} tokens");

        void Add(string what, string where) => events.Add(new QuantEvent("not-in-gguf", $"the configuration has {what}, which GGUF cannot say: readers of the file attend to texts {where} without"));
    }

    /// <summary>Of the presets with more bits, the one with the most whose tensors take hardly more bytes, or null.</summary>
    private static (Recipe Recipe, long Bytes)? FindBetter(Recipe recipe, IReadOnlyList<PlanItem> items, ModelTraits model)
    {
        double most = SmallDifference * items.Sum(item => item.Target.Tensor.ByteLength);
        (Recipe Recipe, long Bytes)? best = null;
        foreach (Recipe candidate in RecipeBook.BuiltIn.Recipes)
        {
            if (candidate.Type is not { IsQuantized: true } type) continue;
            if ((!model.HasImatrix && (candidate.NeedsImatrix || RecipeBook.BuiltIn.ImatrixTypes.Contains(type))) || type.BitsPerWeight <= (best?.Recipe ?? recipe).Type?.BitsPerWeight) continue;
            if (TryMeasure(candidate, items, model) is { } bytes && bytes <= most) best = (candidate, bytes);
        }

        return best;
    }

    /// <summary>Bytes of the tensors under a recipe, or null when it does not suit the model.</summary>
    private static long? TryMeasure(Recipe recipe, IReadOnlyList<PlanItem> items, ModelTraits model)
    {
        TypeChooser chooser = new(recipe, new RecipeOptions(), model);
        try
        {
            return items.Sum(item => chooser.Choose(item.Name, item.Target.Tensor.Shape, item.Target.Tensor.Type, []).Actual.ByteCount(item.Target.Tensor.Shape.ValueCount));
        }
        catch (QuantException)
        {
            return null;
        }
    }
}
