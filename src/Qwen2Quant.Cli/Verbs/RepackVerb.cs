using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

internal static class RepackVerb
{
    private const string GgufPrefix = "gguf:";

    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> to = new("--to") { Description = "Scheme of the output, for example awq:w4g128, compressed-tensors:W4A16, mlx:w4g64 or gguf:Q4_0; `types` lists them", HelpName = "SCHEME", Required = true };
        Option<string> output = ModelOptions.Out();
        Option<string> shardSize = new("--max-shard-size") { Description = "Most bytes of tensors in one safetensors file, for example 5GB or 500MB", HelpName = "SIZE", DefaultValueFactory = _ => "5GB" };
        Option<bool> allowRequantize = new("--allow-requantize") { Description = "Round once more where the scheme cannot hold the values of the source" };
        Option<bool> force = ModelOptions.Force();
        Option<bool> strict = ModelOptions.Strict();
        Option<bool> dryRun = ModelOptions.DryRun();
        Verb verb = new(
            "repack",
            "Puts the integers and scales of a quantized model into another layout, exactly, or says which matrices it cannot hold.",
            "repack Qwen2-7B-GPTQ-Int4 --to awq:w4g128 --out qwen2-7b-awq",
            "repack Qwen2-7B-AWQ --to compressed-tensors:W4A16_ASYM --out qwen2-7b-ct",
            "repack Qwen2-7B-GPTQ-Int4 --to gguf:Q4_0 --out qwen2-7b-Q4_0.gguf");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { to, output, shardSize, allowRequantize, force, strict, dryRun }) verb.Options.Add(option);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string text = session.Get(to);
            PackedScheme? packed = PackedScheme.Parse(text);
            Recipe? recipe = packed is null && text.StartsWith(GgufPrefix, StringComparison.OrdinalIgnoreCase) ? RecipeBook.BuiltIn.Find(text[GgufPrefix.Length..]) : null;
            if (packed is null && recipe?.Type is not { IsQuantized: true })
            {
                throw new QuantException(ErrorKind.Usage, "there is no such scheme to repack to") { Found = text, Expected = $"{string.Join("; ", PackedScheme.AllForms)}; gguf:Q4_0, gguf:Q4_1, gguf:Q8_0 and other block types", Remedy = "Plain types are written by dequantize." };
            }

            long maxShardBytes = Sizes.Parse(session.Get(shardSize), shardSize.Name);
            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            ConversionPlan plan = packed is null
                ? RepackPlanner.Plan(source, recipe!, session.Get(allowRequantize), session.Get(output), session.Context)
                : RepackPlanner.Plan(source, packed, session.Get(allowRequantize), session.Get(output), maxShardBytes, session.Context);
            ConversionOptions options = new(packed?.ToString() ?? GgufPrefix + recipe!.Name, session.Get(force), session.Get(strict), session.Get(dryRun));
            ConversionReport report = new Conversion(source, plan, options, session.Context).Run();
            session.Print(report, ReportJson.Default.ConversionReport, writer => ConversionText.Write(writer, report));
            return ExitCodes.Done;
        }));
        return verb;
    }
}
