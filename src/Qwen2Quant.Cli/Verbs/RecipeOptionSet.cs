using System.CommandLine;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>The scheme of a quantization and the options that change which types tensors get.</summary>
internal sealed class RecipeOptionSet
{
    private const string GgufPrefix = "gguf:", GgufAlone = "gguf";

    private readonly Option<string> _to = new("--to") { Description = "Scheme of the output, for example gguf:Q4_K_M (or gguf with --recipe) or gptq:w4g128; `types` lists them", HelpName = "SCHEME", Required = true };
    private readonly Option<string?> _recipe = new("--recipe") { Description = "Take the types from a recipe file; `types --recipe NAME` prints one to start from", HelpName = "FILE" };
    private readonly Option<bool> _pure = new("--pure") { Description = "The scheme's plain type for every matrix, no mixture" };
    private readonly Option<string?> _outputType = new("--output-type") { Description = "Type of the output matrix", HelpName = "TYPE" };
    private readonly Option<string?> _embeddingType = new("--embedding-type") { Description = "Type of the token embedding", HelpName = "TYPE" };
    private readonly Option<bool> _leaveOutput = new("--leave-output-tensor") { Description = "Leave output.weight in the source's type" };
    private readonly Option<string[]> _tensorType = new("--tensor-type") { Description = "Type of the tensors whose lower-cased name in the output a regular expression finds, for example attn_v=Q8_0, or for a folder mlp.down_proj=w8g128 or self_attn=plain; repeatable, the first match wins", HelpName = "PATTERN=TYPE" };
    private readonly Option<bool> _allowRequantize = new("--allow-requantize") { Description = "Quantize a source that is quantized already" };
    private readonly Option<bool> _keepSplit = new("--keep-split") { Description = "Split the output where the source is split" };
    private readonly Option<string[]> _overrideKv = new("--override-kv") { Description = "Set a metadata key; TYPE is int, float, bool or str; repeatable", HelpName = "KEY=TYPE:VALUE" };

    public void AddTo(Command command)
    {
        foreach (Option option in new Option[] { _to, _recipe, _pure, _outputType, _embeddingType, _leaveOutput, _tensorType, _allowRequantize, _keepSplit, _overrideKv }) command.Options.Add(option);
    }

    /// <summary>The packed scheme that <c>--to</c> names, or null.</summary>
    /// <exception cref="QuantException">The scheme is none, or an option has no meaning for it.</exception>
    public PackedScheme? ReadPacked(Session session)
    {
        if (PackedScheme.Parse(session.Get(_to)) is not { } scheme) return null;
        foreach (Option option in new Option[] { _recipe, _pure, _outputType, _embeddingType, _leaveOutput, _keepSplit, _overrideKv })
        {
            if (session.Parsed.GetResult(option) is { Implicit: false }) throw new QuantException(ErrorKind.Usage, $"{option.Name} has no meaning for {scheme}") { Remedy = "Leave it out." };
        }

        return scheme;
    }

    /// <summary>The recipe that <c>--to</c> or <c>--recipe</c> names.</summary>
    public Recipe ReadRecipe(Session session)
    {
        string scheme = session.Get(_to);
        string? file = session.Parsed.GetValue(_recipe);
        Recipe? named = scheme.StartsWith(GgufPrefix, StringComparison.OrdinalIgnoreCase) ? RecipeBook.BuiltIn.Find(scheme[GgufPrefix.Length..]) : null;
        if (named is null && (file is null || !scheme.Equals(GgufAlone, StringComparison.OrdinalIgnoreCase)))
        {
            throw new QuantException(ErrorKind.Usage, "there is no such scheme")
            {
                Found = scheme,
                Expected = string.Join(", ", RecipeBook.BuiltIn.Recipes.Select(recipe => SchemeOf(recipe))),
                Remedy = $"`types` lists them all. Folders: {string.Join("; ", PackedScheme.AllForms)}.",
            };
        }

        return file is null ? named! : RecipeBook.Load(session.Context.Files, file, session.Context.Limits.JsonFileBytes);
    }

    /// <summary>What else was asked.</summary>
    /// <param name="packed">The packed scheme that is asked for, or null.</param>
    public QuantizationOptions Read(Session session, PackedScheme? packed) => packed is not null ? new()
    {
        Modules = [.. (session.Get(_tensorType) ?? []).Select(text => ModuleOverride.Parse(text, packed))],
        AllowRequantize = session.Get(_allowRequantize),
    } : new()
    {
        Types = new RecipeOptions
        {
            Pure = session.Get(_pure),
            OutputType = session.Parsed.GetValue(_outputType) is { } output ? RecipeOptions.FindType(output, _outputType.Name) : null,
            EmbeddingType = session.Parsed.GetValue(_embeddingType) is { } embedding ? RecipeOptions.FindType(embedding, _embeddingType.Name) : null,
            LeaveOutputTensor = session.Get(_leaveOutput),
            TensorTypes = [.. (session.Get(_tensorType) ?? []).Select(TensorTypeOverride.Parse)],
        },
        AllowRequantize = session.Get(_allowRequantize),
        KeepSplit = session.Get(_keepSplit),
        Metadata = [.. (session.Get(_overrideKv) ?? []).Select(MetadataOverride.Parse)],
    };

    /// <summary>A recipe as <c>--to</c> spells it.</summary>
    public static string SchemeOf(Recipe recipe) => GgufPrefix + recipe.Name;
}
