using System.CommandLine;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Cli.Verbs;

internal static class RepackVerb
{
    private const string GgufPrefix = "gguf:";

    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> to = new("--to") { Description = "Scheme of the output, for example awq:w4g128, compressed-tensors:W4A16, mlx:w4g64 or gguf:Q4_0; `types` lists them", HelpName = "SCHEME", Required = true };
        Option<string> output = ModelOptions.Out();
        Option<bool> allowRequantize = new("--allow-requantize") { Description = "Round once more where the scheme cannot hold the values of the source" };
        ConversionOptionSet conversion = new();
        Verb verb = new(
            "repack",
            "Puts the integers and scales of a quantized model into another layout, exactly, or says which matrices it cannot hold.",
            "repack Qwen2-7B-GPTQ-Int4 --to awq:w4g128 --out qwen2-7b-awq",
            "repack Qwen2-7B-AWQ --to compressed-tensors:W4A16_ASYM --out qwen2-7b-ct",
            "repack Qwen2-7B-GPTQ-Int4 --to gguf:Q4_0 --out qwen2-7b-Q4_0.gguf");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { to, output, allowRequantize }) verb.Options.Add(option);
        conversion.AddTo(verb, hasSubstitutions: true);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string text = session.Get(to);
            PackedScheme? packed = PackedScheme.Parse(text);
            Recipe? recipe = packed is null && text.StartsWith(GgufPrefix, StringComparison.OrdinalIgnoreCase) ? RecipeBook.BuiltIn.Find(text[GgufPrefix.Length..]) : null;
            if (packed is null && recipe?.Type is not { IsQuantized: true })
            {
                throw new QuantException(ErrorKind.Usage, "there is no such scheme to repack to") { Found = text, Expected = $"{string.Join("; ", PackedScheme.AllForms)}; gguf:Q4_0, gguf:Q4_1, gguf:Q8_0 and other block types", Remedy = "Plain types are written by dequantize." };
            }

            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            ConversionPlan plan = packed is null
                ? RepackPlanner.Plan(source, recipe!, session.Get(allowRequantize), session.Get(output), session.Context)
                : RepackPlanner.Plan(source, packed, session.Get(allowRequantize), session.Get(output), conversion.MaxShardBytes(session), session.Context);
            return conversion.Run(session, source, plan, packed?.ToString() ?? GgufPrefix + recipe!.Name, Effort.Normal);
        }));
        return verb;
    }
}
