using System.CommandLine;
using System.Text.Json;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Cli.Verbs;

internal static class TypesVerb
{
    public static Command Create(VerbRunner run)
    {
        Option<string> recipe = new("--recipe") { Description = "Print the rules of a scheme as JSON", HelpName = "NAME" };
        Verb verb = new("types", "Lists every scheme that can be written and every type that can be read.", "types", "types --recipe Q4_0");
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
                session.Out.WriteLine(JsonSerializer.Serialize(found, RecipeJson.Default.Recipe));
                return ExitCodes.Done;
            }

            TypesResult result = new(
                [.. RecipeBook.BuiltIn.Recipes.Select(known => new SchemeRow("gguf:" + known.Name, known.Type, known.FileType))],
                [.. GgmlTypes.All.Select(type => new TypeRow(type.Name, type.Id, type.Element.ValuesPerBlock, type.Element.BytesPerBlock, type.Element.BitsPerWeight, type.Element.CanDecode, type.Element.CanEncode))]);
            session.Print(result, CliJson.Default.TypesResult, output => Write(output, result));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static void Write(TextWriter output, TypesResult result)
    {
        output.WriteLine("schemes for quantize --to:");
        output.WriteLine("  " + string.Join(", ", result.Schemes.Select(scheme => scheme.Scheme)));
        output.WriteLine();
        output.WriteLine($"{"type",-9}{"bits per weight",16}{"block",8}{"bytes",7}   reads   writes");
        foreach (TypeRow type in result.Types)
        {
            output.WriteLine($"{type.Name,-9}{Format.Number(type.BitsPerWeight, "0.0000"),16}{type.BlockValues,8}{type.BlockBytes,7}   {(type.Reads ? "yes" : "-"),-8}{(type.Writes ? "yes" : "-")}");
        }
    }
}
