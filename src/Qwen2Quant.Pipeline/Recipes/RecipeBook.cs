using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>Recipes with what they have in common.</summary>
/// <param name="Fallbacks">Type taken where a row is not whole blocks of the wanted type.</param>
/// <param name="ImatrixTypes">Types that are useless without an importance matrix; llama-quantize refuses them then.</param>
public sealed record RecipeBook(
    string Source, IReadOnlyDictionary<ElementType, ElementType> Fallbacks, IReadOnlyList<ElementType> ImatrixTypes, IReadOnlyList<Recipe> Recipes)
{
    private const string ResourceName = "llama-quantize.json";
    private static readonly Lazy<RecipeBook> LazyBuiltIn = new(ReadBuiltIn);

    /// <summary>The presets of llama-quantize.</summary>
    public static RecipeBook BuiltIn => LazyBuiltIn.Value;

    /// <summary>The recipe of that name or alias in any case, or of that <c>general.file_type</c> number; null when there is none.</summary>
    public Recipe? Find(string name) => Recipes.FirstOrDefault(recipe =>
        recipe.Name.Equals(name, StringComparison.OrdinalIgnoreCase)
        || recipe.Aliases.Contains(name, StringComparer.OrdinalIgnoreCase)
        || (recipe.FileType is { } number && name == $"{number}"));

    /// <summary>Reads a recipe that a user wrote.</summary>
    /// <exception cref="QuantException">There is no such file, or it is not a recipe.</exception>
    public static Recipe Load(IFileLayer files, string path, long largestBytes) => RecipeReader.ReadRecipe(files.ReadAllBytes(path, largestBytes), path);

    /// <summary>True when llama-quantize refuses the tensor without an importance matrix.</summary>
    public bool NeedsImatrix(string ggufName, ElementType type) =>
        ggufName is not (TensorCategory.OutputName or TensorCategory.EmbeddingName) && ImatrixTypes.Contains(type);

    private static RecipeBook ReadBuiltIn()
    {
        using Stream stream = typeof(RecipeBook).Assembly.GetManifestResourceStream(ResourceName)!;
        byte[] json = new byte[stream.Length];
        stream.ReadExactly(json);
        return RecipeReader.ReadBook(json, ResourceName);
    }
}
