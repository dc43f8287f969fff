using System.CommandLine;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;

namespace Qwen2Quant.Cli.Verbs;

internal static class PadVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<int> multiple = new("--intermediate-multiple") { Description = "Widen MLPs by channels of zeros to a multiple of this many, for groups or tensor-parallel parts that their width does not divide into", HelpName = "N", DefaultValueFactory = _ => 1 };
        Option<bool> untie = new("--untie") { Description = "Write the embedding once more as an output matrix of its own" };
        Option<string> output = ModelOptions.Out();
        ConversionOptionSet conversion = new();
        Verb verb = new(
            "pad",
            "Changes shapes of a model, not its function: wider MLPs, an output matrix of its own.",
            "pad Qwen/Qwen2-72B-Instruct --intermediate-multiple 1024 --out qwen2-72b-padded",
            "pad Qwen/Qwen2-0.5B --untie --out qwen2-0.5b-untied");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { multiple, untie, output }) verb.Options.Add(option);
        conversion.AddTo(verb, hasSubstitutions: false);
        verb.SetAction(parsed => run(parsed, session =>
        {
            if (session.Get(multiple) < 1) throw new QuantException(ErrorKind.Usage, "--intermediate-multiple is out of range") { Found = $"{session.Get(multiple)}", Expected = "1 or more" };
            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            using Checkpoint padded = PadPlanner.Open(source, session.Get(multiple), session.Get(untie));
            foreach (QuantEvent change in PadPlanner.Changes(source.Config, padded.Config)) session.Context.Events.Report(change);
            ConversionPlan plan = PadPlanner.Plan(padded, session.Get(output), conversion.MaxShardBytes(session), session.Context);
            return conversion.Run(session, padded, plan, "safetensors:auto", Effort.Reference);
        }));
        return verb;
    }
}
