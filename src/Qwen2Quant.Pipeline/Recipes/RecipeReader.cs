using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>Reads recipes from JSON. What is unknown, misspelled or missing is refused, with the place and what would be right.</summary>
internal sealed class RecipeReader(string path)
{
    private delegate void Member(ref Utf8JsonReader reader, string where);

    /// <summary>A file that holds one recipe.</summary>
    /// <exception cref="QuantException">A usage error: the file is not a recipe.</exception>
    public static Recipe ReadRecipe(ReadOnlySpan<byte> json, string path)
    {
        Recipe? recipe = null;
        RecipeReader self = new(path);
        StrictJson.Read(json, Limits.Default, (ref Utf8JsonReader reader) => recipe = self.Recipe(ref reader, "the recipe"), self.Refuse);
        return recipe!;
    }

    /// <summary>A file that holds a book of recipes.</summary>
    /// <exception cref="QuantException">The file is not a book.</exception>
    public static RecipeBook ReadBook(ReadOnlySpan<byte> json, string path)
    {
        string source = "";
        Dictionary<ElementType, ElementType> fallbacks = [];
        List<ElementType> imatrixTypes = [];
        List<Recipe> recipes = [];
        RecipeReader self = new(path);
        StrictJson.Read(json, Limits.Default, (ref Utf8JsonReader reader) => self.Members(ref reader, "the book", new()
        {
            ["source"] = (ref Utf8JsonReader value, string where) => source = self.Text(ref value, where),
            ["fallbacks"] = (ref Utf8JsonReader value, string where) =>
            {
                HashSet<string> seen = new(StringComparer.Ordinal);
                while (StrictJson.NextMember(ref value, seen, out string name)) fallbacks.Add(self.Type(name, where), self.Type(self.Text(ref value, where), where));
            },
            ["imatrix_types"] = (ref Utf8JsonReader value, string where) => imatrixTypes = [.. self.Texts(ref value, where).Select(name => self.Type(name, where))],
            ["recipes"] = (ref Utf8JsonReader value, string where) =>
            {
                self.Demand(ref value, JsonTokenType.StartArray, where, "an array of recipes");
                while (StrictJson.NextElement(ref value)) recipes.Add(self.Recipe(ref value, $"{where}[{recipes.Count}]"));
            },
        }), self.Refuse);
        return new RecipeBook(source, fallbacks, imatrixTypes, recipes);
    }

    private Recipe Recipe(ref Utf8JsonReader reader, string at)
    {
        Recipe recipe = new() { Name = "" };
        List<RecipeRule> rules = [];
        Members(ref reader, at, new()
        {
            ["name"] = (ref Utf8JsonReader value, string where) => recipe = recipe with { Name = Text(ref value, where) },
            ["aliases"] = (ref Utf8JsonReader value, string where) => recipe = recipe with { Aliases = Texts(ref value, where) },
            ["file_type"] = (ref Utf8JsonReader value, string where) => recipe = recipe with { FileType = Whole(ref value, where) },
            ["type"] = (ref Utf8JsonReader value, string where) => recipe = recipe with { Type = Type(Text(ref value, where), where) },
            ["needs_imatrix"] = (ref Utf8JsonReader value, string where) => recipe = recipe with { NeedsImatrix = Flag(ref value, where) },
            ["rules"] = (ref Utf8JsonReader value, string where) =>
            {
                Demand(ref value, JsonTokenType.StartArray, where, "an array of rules");
                while (StrictJson.NextElement(ref value)) rules.Add(Rule(ref value, $"{where}[{rules.Count}]"));
            },
        });
        if (recipe.Name.Length == 0) throw Refuse(at, "no name", "\"name\"");
        return recipe with { Rules = rules };
    }

    private RecipeRule Rule(ref Utf8JsonReader reader, string at)
    {
        ElementType? type = null;
        RecipeRule rule = new() { Type = PlainTypes.F32 };
        Members(ref reader, at, new()
        {
            ["tensors"] = (ref Utf8JsonReader value, string where) => rule = rule with { Tensors = Categories(ref value, where) },
            ["layers"] = (ref Utf8JsonReader value, string where) => rule = rule with { Layers = Range(ref value, where) },
            ["place"] = (ref Utf8JsonReader value, string where) => rule = rule with { Place = Range(ref value, where) },
            ["gqa"] = (ref Utf8JsonReader value, string where) => rule = rule with { Gqa = Range(ref value, where) },
            ["experts"] = (ref Utf8JsonReader value, string where) => rule = rule with { Experts = Range(ref value, where) },
            ["layer_count"] = (ref Utf8JsonReader value, string where) => rule = rule with { LayerCount = Range(ref value, where) },
            ["imatrix"] = (ref Utf8JsonReader value, string where) => rule = rule with { Imatrix = Flag(ref value, where) },
            ["stacked"] = (ref Utf8JsonReader value, string where) => rule = rule with { Stacked = Flag(ref value, where) },
            ["replaces"] = (ref Utf8JsonReader value, string where) => rule = rule with { Replaces = [.. Texts(ref value, where).Select(name => Type(name, where))] },
            ["type"] = (ref Utf8JsonReader value, string where) => type = Type(Text(ref value, where), where),
            ["fallback"] = (ref Utf8JsonReader value, string where) => rule = rule with { Fallback = Type(Text(ref value, where), where) },
        });
        return rule with { Type = type ?? throw Refuse(at, "no type", "\"type\"") };
    }

    private void Members(ref Utf8JsonReader reader, string at, Dictionary<string, Member> known)
    {
        Demand(ref reader, JsonTokenType.StartObject, at, "an object");
        HashSet<string> seen = new(StringComparer.Ordinal);
        while (StrictJson.NextMember(ref reader, seen, out string name))
        {
            if (!known.TryGetValue(name, out Member? read)) throw Refuse(at, $"\"{name}\"", "the names " + string.Join(", ", known.Keys));
            read(ref reader, at == "the book" || at == "the recipe" ? name : $"{at}.{name}");
        }
    }

    private IReadOnlyList<string> Categories(ref Utf8JsonReader reader, string where)
    {
        IReadOnlyList<string> names = reader.TokenType == JsonTokenType.String ? [Text(ref reader, where)] : Texts(ref reader, where);
        return names.FirstOrDefault(name => !TensorCategory.All.Contains(name)) is { } unknown
            ? throw Refuse(where, $"\"{unknown}\"", string.Join(", ", TensorCategory.All))
            : names;
    }

    private NumberRange Range(ref Utf8JsonReader reader, string where)
    {
        string text = Text(ref reader, where);
        return NumberRange.TryParse(text) ?? throw Refuse(where, $"\"{text}\"", "a range such as \"8\", \"4..\", \"..1/8\", \"1/8..7/8\" or \"more\"");
    }

    private ElementType Type(string name, string where) =>
        GgmlTypes.Find(name)?.Element ?? throw Refuse(where, $"\"{name}\"", "a type of ggml, see `qwen2quant types`");

    private List<string> Texts(ref Utf8JsonReader reader, string where)
    {
        Demand(ref reader, JsonTokenType.StartArray, where, "an array of texts");
        List<string> texts = [];
        while (StrictJson.NextElement(ref reader)) texts.Add(Text(ref reader, where));
        return texts;
    }

    private string Text(ref Utf8JsonReader reader, string where)
    {
        Demand(ref reader, JsonTokenType.String, where, "a text");
        return reader.GetString()!;
    }

    private int Whole(ref Utf8JsonReader reader, string where) =>
        StrictJson.TryGetWhole(ref reader, out long number) && number <= int.MaxValue ? (int)number : throw Refuse(where, StrictJson.Describe(ref reader), "a whole number");

    private bool Flag(ref Utf8JsonReader reader, string where) =>
        reader.TokenType is JsonTokenType.True or JsonTokenType.False ? reader.GetBoolean() : throw Refuse(where, StrictJson.Describe(ref reader), "true or false");

    private void Demand(ref Utf8JsonReader reader, JsonTokenType type, string where, string expected)
    {
        if (reader.TokenType != type) throw Refuse(where, StrictJson.Describe(ref reader), expected);
    }

    private QuantException Refuse(string where, string found, string expected) => new(ErrorKind.Usage, $"the recipe is wrong at {where}")
    {
        Path = path,
        Found = found,
        Expected = expected,
        Remedy = "`qwen2quant types --recipe Q4_K_M` prints one that is right.",
    };

    private QuantException Refuse(JsonProblem problem) => new(ErrorKind.Usage, "the recipe is not JSON", problem.Error)
    {
        Path = path,
        ByteOffset = problem.ByteOffset,
        Found = problem.Fault switch
        {
            JsonFault.DuplicateName => $"\"{problem.Name}\" twice",
            JsonFault.Size => "a file that is too large",
            _ => problem.Error?.Message,
        },
    };
}
