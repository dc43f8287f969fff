using System.CommandLine;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Cli.Verbs;

internal static class ConvertVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> to = new("--to") { Description = "Container of the output", HelpName = "gguf|safetensors", Required = true };
        to.AcceptOnlyFromAmong("gguf", "safetensors");
        Option<string> type = new("--type") { Description = "Type of the matrices; auto keeps the source's (vectors are F32 in GGUF)", HelpName = "auto|f32|f16|bf16|q8_0", DefaultValueFactory = _ => "auto" };
        type.AcceptOnlyFromAmong("auto", "f32", "f16", "bf16", "q8_0");
        Option<string> output = ModelOptions.Out();
        ConversionOptionSet conversion = new();
        Verb verb = new(
            "convert",
            "Converts a model between containers and plain types.",
            "convert Qwen/Qwen2-0.5B --to gguf --type bf16 --out qwen2-0.5b-BF16.gguf",
            "convert qwen2-0.5b-Q8_0.gguf --to safetensors --type bf16 --out qwen2-0.5b");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { to, type, output }) verb.Options.Add(option);
        conversion.AddTo(verb, hasSubstitutions: true);
        verb.SetAction(parsed => run(parsed, session =>
        {
            ElementType? elementType = session.Get(type) == "auto" ? null : RecipeOptions.FindType(session.Get(type), type.Name);
            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            string scheme = $"{session.Get(to)}:{session.Get(type)}";
            ConversionPlan plan = session.Get(to) == "gguf"
                ? GgufPlanner.PlanConversion(source, elementType, session.Get(output), session.Context)
                : FolderPlanner.PlanConversion(source, elementType, scheme, session.Get(output), conversion.MaxShardBytes(session), session.Context);
            return conversion.Run(session, source, plan, scheme, Effort.Reference);
        }));
        return verb;
    }
}
