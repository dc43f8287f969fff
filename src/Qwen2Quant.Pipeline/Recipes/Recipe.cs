using System.Text.Json;
using System.Text.Json.Serialization;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>One exception of a recipe. Of several that match a tensor, the last wins.</summary>
/// <param name="Tensors">Category of tensors, see <see cref="TensorCategory"/>.</param>
/// <param name="Type">ggml type that they get.</param>
/// <param name="ExpertCount">Only in models with exactly so many experts.</param>
public sealed record RecipeRule(string Tensors, string Type, int? ExpertCount = null);

/// <summary>A named mixture of types, as data.</summary>
/// <param name="FileType"><c>general.file_type</c>: the LLAMA_FTYPE number.</param>
/// <param name="Type">ggml type of every quantizable tensor that no rule names.</param>
public sealed record Recipe(string Name, int FileType, string Type, IReadOnlyList<RecipeRule>? Rules = null);

/// <summary>The recipes that ship with the program.</summary>
/// <param name="Fallbacks">Type taken where a row is not a multiple of the wanted type's block.</param>
public sealed record RecipeBook(string Source, IReadOnlyDictionary<string, string> Fallbacks, IReadOnlyList<Recipe> Recipes)
{
    private static readonly Lazy<RecipeBook> LazyBuiltIn = new(ReadBuiltIn);

    /// <summary>The presets of llama-quantize.</summary>
    public static RecipeBook BuiltIn => LazyBuiltIn.Value;

    /// <summary>The recipe of that name in any case, or null.</summary>
    public Recipe? Find(string name) => Recipes.FirstOrDefault(recipe => recipe.Name.Equals(name, StringComparison.OrdinalIgnoreCase));

    private static RecipeBook ReadBuiltIn()
    {
        using Stream stream = typeof(RecipeBook).Assembly.GetManifestResourceStream("llama-quantize.json")!;
        return JsonSerializer.Deserialize(stream, RecipeJson.Default.RecipeBook)!;
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    WriteIndented = true)]
[JsonSerializable(typeof(RecipeBook))]
[JsonSerializable(typeof(Recipe))]
public sealed partial class RecipeJson : JsonSerializerContext;
