using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>What a recipe makes of the 7B shape (Qwen2-7B, Qwen2.5-7B), with an importance matrix where it needs one, to compare recipes by.</summary>
/// <param name="BitsPerWeight">Bits of tensor data for each weight of the whole file.</param>
/// <param name="NeedsImatrix">True when it cannot be made without an importance matrix.</param>
/// <param name="CanEncode">True when every type that it takes can be written.</param>
public sealed record SchemeFigures(double BitsPerWeight, bool NeedsImatrix, bool CanEncode)
{
    private static readonly Qwen2Config Shape = new()
    {
        VocabSize = 152064, HiddenSize = 3584, IntermediateSize = 18944, NumHiddenLayers = 28, NumAttentionHeads = 28, NumKeyValueHeads = 4, HeadDim = 128, TieWordEmbeddings = false,
    };

    private static readonly Lazy<IReadOnlyList<GgufTensor>> Tensors = new(() => GgufNames.Plan(TensorCatalogue.For(Shape)));

    /// <summary>The figures of a recipe; null for one that keeps the source's types.</summary>
    public static SchemeFigures? Of(Recipe recipe)
    {
        if (recipe.Type is null) return null;
        SchemeFigures without = Of(recipe, hasImatrix: false);
        return without.NeedsImatrix ? Of(recipe, hasImatrix: true) with { NeedsImatrix = true } : without;
    }

    private static SchemeFigures Of(Recipe recipe, bool hasImatrix)
    {
        TypeChooser chooser = new(recipe, new RecipeOptions(), new ModelTraits(Shape, Tensors.Value, hasImatrix));
        long bytes = 0, values = 0;
        (bool needsImatrix, bool canEncode) = (recipe.NeedsImatrix, true);
        foreach (GgufTensor tensor in Tensors.Value)
        {
            ElementType type = chooser.Choose(tensor.Name, tensor.Shape, PlainTypes.F32, []).Actual;
            bytes += type.ByteCount(tensor.Shape.ValueCount);
            values += tensor.Shape.ValueCount;
            needsImatrix |= RecipeBook.BuiltIn.NeedsImatrix(tensor.Name, type);
            canEncode &= type.CanEncode;
        }

        return new SchemeFigures(8.0 * bytes / values, needsImatrix, canEncode);
    }
}
