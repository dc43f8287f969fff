using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

internal static class MergeVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> output = ModelOptions.Out();
        Option<bool> force = ModelOptions.Force();
        Option<bool> dryRun = new("--dry-run") { Description = "Check, and print the size; write nothing" };
        Verb verb = new(
            "merge",
            "Puts the parts of a GGUF file, or the shards of a safetensors folder, into one file; tensors and metadata stay as they are.",
            "merge qwen2-72b-Q4_K_M-00001-of-00003.gguf --out qwen2-72b-Q4_K_M.gguf",
            "merge ./Qwen2-7B --out qwen2-7b-one-file");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { output, force, dryRun }) verb.Options.Add(option);
        verb.SetAction(parsed => run(parsed, session =>
        {
            using ContainerCopy copy = ContainerCopy.Open(session.Get(model), null, session.Get(output), session.Context);
            Print(session, copy.Run(session.Get(force), session.Get(dryRun)));
            return ExitCodes.Done;
        }));
        return verb;
    }

    /// <summary>Prints what came of it.</summary>
    internal static void Print(Session session, ContainerReport report) => session.Print(report, ReportJson.Default.ContainerReport, writer =>
        writer.WriteLine($"{TextEscape.Escape(report.Output)}: {report.Tensors} tensors in {report.Files} file{(report.Files == 1 ? "" : "s")}, {report.Bytes} bytes, {(report.DryRun ? "nothing was written" : $"{Format.Number(report.Seconds, "0.0")} s")}"));
}
