using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Cli.Verbs;

internal static class TypesVerb
{
    public static Command Create(VerbRunner run)
    {
        Option<string> recipe = new("--recipe") { Description = "Print the rules of a scheme as JSON, which quantize --recipe reads", HelpName = "NAME" };
        Verb verb = new("types", "Lists every scheme and every type.", "types", "types --recipe Q4_K_M");
        verb.Options.Add(recipe);
        verb.SetAction(parsed => run(parsed, session =>
        {
            if (session.Parsed.GetValue(recipe) is { } name)
            {
                Recipe found = RecipeBook.BuiltIn.Find(name) ?? throw new QuantException(ErrorKind.Usage, "there is no such recipe")
                {
                    Found = name,
                    Expected = string.Join(", ", RecipeBook.BuiltIn.Recipes.Select(known => known.Name)),
                };
                session.Out.WriteLine(found.ToJson());
                return ExitCodes.Done;
            }

            TypesResult result = new(
                [.. RecipeBook.BuiltIn.Recipes.Select(Row)],
                [.. GgmlTypes.All.Select(type => new TypeRow(type.Name, type.Id, type.Element.ValuesPerBlock, type.Element.BytesPerBlock, type.Element.BitsPerWeight, type.Element.CanDecode, type.Element.CanEncode))],
                PackedScheme.AllForms);
            session.Print(result, CliJson.Default.TypesResult, output => Write(output, result));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static SchemeRow Row(Recipe recipe)
    {
        SchemeFigures? figures = SchemeFigures.Of(recipe);
        return new SchemeRow(
            SchemeChoice.SchemeOf(recipe), recipe.Aliases, recipe.FileType, recipe.Type?.Name, recipe.Type?.ValuesPerBlock, figures?.BitsPerWeight, figures?.NeedsImatrix ?? false, figures?.CanEncode ?? true);
    }

    private static void Write(TextWriter output, TypesResult result)
    {
        output.WriteLine("schemes for quantize --to; bits per weight are of a whole 7B model:");
        output.WriteLine($"{"scheme",-16}{"bits per weight",16}{"plain type",13}{"block",8}   {"imatrix",-10}{"writes",-9}also");
        foreach (SchemeRow scheme in result.Schemes)
        {
            string bits = scheme.BitsPerWeight is { } figure ? Format.Number(figure, "0.00") : "as source";
            string line = $"{scheme.Scheme,-16}{bits,16}{scheme.Type ?? "-",13}{scheme.BlockValues?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "-",8}   "
                + $"{(scheme.NeedsImatrix ? "needed" : "-"),-10}{(scheme.Writes ? "yes" : "-"),-9}{string.Join(", ", scheme.Aliases)}";
            output.WriteLine(line.TrimEnd());
        }

        output.WriteLine();
        foreach (string form in result.PackedSchemes) output.WriteLine($"safetensors folders: {form}");
        output.WriteLine();
        output.WriteLine($"{"type",-9}{"bits per weight",16}{"block",8}{"bytes",7}   reads   writes");
        foreach (TypeRow type in result.Types)
        {
            output.WriteLine($"{type.Name,-9}{Format.Number(type.BitsPerWeight, "0.0000"),16}{type.BlockValues,8}{type.BlockBytes,7}   {(type.Reads ? "yes" : "-"),-8}{(type.Writes ? "yes" : "-")}");
        }
    }
}
