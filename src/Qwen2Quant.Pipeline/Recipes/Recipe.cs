using System.Text;
using System.Text.Json;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>A named mixture of types, as data: a plain type and the rules that deviate from it. docs/recipes.md describes the JSON.</summary>
public sealed record Recipe
{
    public required string Name { get; init; }

    /// <summary>Other names by which it is found.</summary>
    public IReadOnlyList<string> Aliases { get; init; } = [];

    /// <summary><c>general.file_type</c>: the LLAMA_FTYPE number, or null where none fits.</summary>
    public int? FileType { get; init; }

    /// <summary>Type of every quantizable tensor that no rule names; null keeps the source's.</summary>
    public ElementType? Type { get; init; }

    /// <summary>True when llama-quantize refuses to make such a file without an importance matrix, whatever its tensors.</summary>
    public bool NeedsImatrix { get; init; }

    /// <summary>Tried in order, each on what those before it chose, so that the last that matches decides.</summary>
    public IReadOnlyList<RecipeRule> Rules { get; init; } = [];

    /// <summary>True when it changes no type: for splitting anew and for other metadata.</summary>
    public bool IsCopy => Type is null && Rules.Count == 0;

    /// <summary>The recipe as <see cref="RecipeReader"/> reads it, a rule on each line.</summary>
    public string ToJson()
    {
        StringBuilder text = new("{\n");
        text.Append("  \"name\": ").Append(Quoted(Name));
        if (Aliases.Count > 0) text.Append(",\n  \"aliases\": ").Append(List(Aliases));
        if (FileType is not null) text.Append(",\n  \"file_type\": ").Append(FileType);
        if (Type is not null) text.Append(",\n  \"type\": ").Append(Quoted(Type.Name));
        if (NeedsImatrix) text.Append(",\n  \"needs_imatrix\": true");
        if (Rules.Count > 0) text.Append(",\n  \"rules\": [\n").AppendJoin(",\n", Rules.Select(rule => "    { " + string.Join(", ", Members(rule)) + " }")).Append("\n  ]");
        return text.Append("\n}").ToString();
    }

    private static IEnumerable<string> Members(RecipeRule rule)
    {
        if (rule.Tensors.Count > 0) yield return "\"tensors\": " + (rule.Tensors.Count == 1 ? Quoted(rule.Tensors[0]) : List(rule.Tensors));
        foreach ((string name, NumberRange? range) in new[] { ("layers", rule.Layers), ("place", rule.Place), ("gqa", rule.Gqa), ("experts", rule.Experts), ("layer_count", rule.LayerCount) })
        {
            if (range is not null) yield return $"\"{name}\": {Quoted(range.Text)}";
        }

        if (rule.Imatrix is { } imatrix) yield return $"\"imatrix\": {(imatrix ? "true" : "false")}";
        if (rule.Stacked is { } stacked) yield return $"\"stacked\": {(stacked ? "true" : "false")}";
        if (rule.Replaces.Count > 0) yield return "\"replaces\": " + List(rule.Replaces.Select(type => type.Name));
        yield return "\"type\": " + Quoted(rule.Type.Name);
        if (rule.Fallback is not null) yield return "\"fallback\": " + Quoted(rule.Fallback.Name);
    }

    private static string List(IEnumerable<string> texts) => "[" + string.Join(", ", texts.Select(Quoted)) + "]";

    private static string Quoted(string text) => $"\"{JsonEncodedText.Encode(text)}\"";
}
