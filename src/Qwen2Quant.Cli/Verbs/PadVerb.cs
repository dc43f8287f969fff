using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

internal static class PadVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<int> multiple = new("--intermediate-multiple") { Description = "Widen MLPs by channels of zeros to a multiple of this many, for groups or tensor-parallel parts that their width does not divide into", HelpName = "N", DefaultValueFactory = _ => 1 };
        Option<bool> untie = new("--untie") { Description = "Write the embedding once more as an output matrix of its own" };
        Option<string> output = ModelOptions.Out();
        Option<string> shardSize = new("--max-shard-size") { Description = "Most bytes of tensors in one safetensors file, for example 5GB or 500MB", HelpName = "SIZE", DefaultValueFactory = _ => "5GB" };
        Option<bool> force = ModelOptions.Force();
        Option<bool> dryRun = ModelOptions.DryRun();
        Verb verb = new(
            "pad",
            "Changes shapes of a model, not its function: wider MLPs, an output matrix of its own.",
            "pad Qwen/Qwen2-72B-Instruct --intermediate-multiple 1024 --out qwen2-72b-padded",
            "pad Qwen/Qwen2-0.5B --untie --out qwen2-0.5b-untied");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { multiple, untie, output, shardSize, force, dryRun }) verb.Options.Add(option);
        verb.SetAction(parsed => run(parsed, session =>
        {
            long maxShardBytes = Sizes.Parse(session.Get(shardSize), shardSize.Name);
            if (session.Get(multiple) < 1) throw new QuantException(ErrorKind.Usage, "--intermediate-multiple is out of range") { Found = $"{session.Get(multiple)}", Expected = "1 or more" };
            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            using Checkpoint padded = PadPlanner.Open(source, session.Get(multiple), session.Get(untie));
            foreach (QuantEvent change in PadPlanner.Changes(source.Config, padded.Config)) session.Context.Events.Report(change);
            ConversionPlan plan = PadPlanner.Plan(padded, session.Get(output), maxShardBytes, session.Context);
            ConversionReport report = new Conversion(padded, plan, new ConversionOptions("safetensors:auto", session.Get(force), DryRun: session.Get(dryRun), Effort: Effort.Reference), session.Context).Run();
            session.Print(report, ReportJson.Default.ConversionReport, writer => ConversionText.Write(writer, report));
            return ExitCodes.Done;
        }));
        return verb;
    }
}
