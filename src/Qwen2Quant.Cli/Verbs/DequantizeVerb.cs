using System.CommandLine;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Cli.Verbs;

internal static class DequantizeVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> to = new("--to") { Description = "Container of the output", HelpName = "safetensors|gguf", DefaultValueFactory = _ => "safetensors" };
        to.AcceptOnlyFromAmong("safetensors", "gguf");
        Option<string> type = new("--type") { Description = "Type of the matrices; f32 keeps every value as it is decoded", HelpName = "bf16|f16|f32", DefaultValueFactory = _ => "bf16" };
        type.AcceptOnlyFromAmong("bf16", "f16", "f32");
        Option<string> output = ModelOptions.Out();
        ConversionOptionSet conversion = new();
        Verb verb = new(
            "dequantize",
            "Writes the values of a quantized model, GGUF or packed, as plain weights.",
            "dequantize Qwen2-7B-GPTQ-Int4 --out qwen2-7b-plain",
            "dequantize qwen2-0.5b-Q4_K_M.gguf --type f16 --out qwen2-0.5b-f16");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { to, type, output }) verb.Options.Add(option);
        conversion.AddTo(verb, hasSubstitutions: false);
        verb.SetAction(parsed => run(parsed, session =>
        {
            ElementType elementType = RecipeOptions.FindType(session.Get(type), type.Name);
            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            session.Context.Events.Report(Origin(source));
            string scheme = $"{session.Get(to)}:{session.Get(type)}";
            ConversionPlan plan = session.Get(to) == "gguf"
                ? GgufPlanner.PlanConversion(source, elementType, session.Get(output), session.Context)
                : FolderPlanner.PlanConversion(source, elementType, scheme, session.Get(output), conversion.MaxShardBytes(session), session.Context);
            return conversion.Run(session, source, plan, scheme, Effort.Reference);
        }));
        return verb;
    }

    /// <summary>What the output comes from.</summary>
    private static QuantEvent Origin(Checkpoint source)
    {
        string[] types = [.. source.Tensors.Tensors
            .Select(entry => (source.Raw.FindStored(entry.Name) ?? entry).Type)
            .Where(type => type.IsQuantized)
            .GroupBy(type => type.Name, StringComparer.Ordinal)
            .Select(group => $"{group.Count()} x {group.Key}")];
        return types.Length == 0
            ? new QuantEvent("not-quantized", "no tensor of the model is quantized")
            : new QuantEvent("dequantized", $"the source is {source.ContainerName}: {string.Join(", ", types)}");
    }
}
