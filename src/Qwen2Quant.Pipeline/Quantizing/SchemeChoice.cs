using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Quantizing;

/// <summary>What a scheme's name and the options that change its types come to: a packed scheme, or a recipe for a GGUF file.</summary>
/// <param name="Packed">Null for GGUF.</param>
/// <param name="Recipe">Null for packed folders.</param>
public sealed record SchemeChoice(PackedScheme? Packed, Recipe? Recipe)
{
    private const string GgufPrefix = "gguf:", GgufAlone = "gguf";

    /// <summary>As <c>--to</c> spells it.</summary>
    public string Name => Packed?.ToString() ?? SchemeOf(Recipe!);

    /// <summary>A recipe as <c>--to</c> spells it.</summary>
    public static string SchemeOf(Recipe recipe) => GgufPrefix + recipe.Name;

    /// <exception cref="QuantException">Usage: there is no such scheme, or an option has no meaning for it.</exception>
    public static SchemeChoice Read(string scheme, QuantizationChoices choices, RunContext context)
    {
        if (PackedScheme.Parse(scheme) is not { } packed)
        {
            if (choices.MaxShardSize is not null) throw new QuantException(ErrorKind.Usage, "--max-shard-size has no meaning for GGUF files") { Remedy = "Leave it out." };
            return new SchemeChoice(null, ReadRecipe(scheme, choices.Recipe, context));
        }

        (bool IsGiven, string Option)[] others =
        [
            (choices.Recipe is not null, "--recipe"), (choices.Pure, "--pure"), (choices.OutputType is not null, "--output-type"), (choices.EmbeddingType is not null, "--embedding-type"),
            (choices.LeaveOutputTensor, "--leave-output-tensor"), (choices.KeepSplit, "--keep-split"), (choices.OverrideKv.Count > 0, "--override-kv"),
        ];
        if (Array.Find(others, option => option.IsGiven) is { IsGiven: true } given) throw new QuantException(ErrorKind.Usage, $"{given.Option} has no meaning for {packed}") { Remedy = "Leave it out." };
        if (choices.Modelfile) throw new QuantException(ErrorKind.Usage, "--modelfile has no meaning for folders") { Remedy = "Leave it out." };
        return new SchemeChoice(packed, null);
    }

    /// <summary>What else was asked of types.</summary>
    public QuantizationOptions Options(QuantizationChoices choices) => Packed is { } packed ? new()
    {
        Modules = [.. choices.TensorType.Select(text => ModuleOverride.Parse(text, packed))],
        AllowRequantize = choices.AllowRequantize,
    } : new()
    {
        Types = new RecipeOptions
        {
            Pure = choices.Pure,
            OutputType = choices.OutputType is { } output ? RecipeOptions.FindType(output, "--output-type") : null,
            EmbeddingType = choices.EmbeddingType is { } embedding ? RecipeOptions.FindType(embedding, "--embedding-type") : null,
            LeaveOutputTensor = choices.LeaveOutputTensor,
            TensorTypes = [.. choices.TensorType.Select(TensorTypeOverride.Parse)],
        },
        AllowRequantize = choices.AllowRequantize,
        KeepSplit = choices.KeepSplit,
        Metadata = [.. choices.OverrideKv.Select(MetadataOverride.Parse)],
    };

    private static Recipe ReadRecipe(string scheme, string? file, RunContext context)
    {
        Recipe? named = scheme.StartsWith(GgufPrefix, StringComparison.OrdinalIgnoreCase) ? RecipeBook.BuiltIn.Find(scheme[GgufPrefix.Length..]) : null;
        if (named is null && (file is null || !scheme.Equals(GgufAlone, StringComparison.OrdinalIgnoreCase)))
        {
            throw new QuantException(ErrorKind.Usage, "there is no such scheme")
            {
                Found = scheme,
                Expected = string.Join(", ", RecipeBook.BuiltIn.Recipes.Select(SchemeOf)),
                Remedy = $"`types` lists them all. Folders: {string.Join("; ", PackedScheme.AllForms)}.",
            };
        }

        return file is null ? named! : RecipeBook.Load(context.Files, file, context.Limits.JsonFileBytes);
    }
}
