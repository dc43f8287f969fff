using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

internal static class CalibrateVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string?> data = new("--data") { Description = ModelOptions.TextHelp, HelpName = "TEXT" };
        Option<string> output = ModelOptions.Out();
        Option<string> depth = new("--depth") { Description = "Sums of squares of each channel (diagonal), or of all products of two channels of an input (gram), for quantize --statistics", HelpName = "diagonal|gram", DefaultValueFactory = _ => "diagonal" };
        depth.AcceptOnlyFromAmong("diagonal", "gram");
        Option<string?> format = new("--format") { Description = "GGUF, or the older format of llama-imatrix [default: by the ending of --out, .dat or another]", HelpName = "gguf|dat" };
        format.AcceptOnlyFromAmong("gguf", "dat");
        Option<string[]> inputs = new("--in") { Description = "Statistics of the same model to add, GGUF or .dat; repeatable; without --data only these", HelpName = "FILE" };
        Option<bool> processOutput = new("--process-output") { Description = "Also for the output matrix; of a tied model for the token embedding" };
        Option<bool> force = ModelOptions.Force();
        Option<bool> strict = new("--strict") { Description = "Refuse experts that saw no tokens (exit code 5)" };
        Option<string?> partition = new("--partition") { Description = "Only one part of the windows, for example 2/4: the parts are collected anywhere and added with --in, in their order", HelpName = "K/N" };
        CalibrationOptionSet windows = new();
        Verb verb = new(
            "calibrate",
            "Collects which inputs of a model's matrices matter on a text, as an importance matrix that quantize and llama.cpp read.",
            "calibrate builtin:tiny --data builtin:calibration --out imatrix.gguf --samples 16",
            "calibrate Qwen/Qwen2-0.5B-Instruct --data chats.txt --parse-special --out imatrix.gguf",
            "calibrate Qwen/Qwen2-0.5B --in part1.gguf --in part2.dat --out whole.dat",
            "calibrate Qwen/Qwen2-7B --data chats.txt --partition 1/4 --out part1.gguf",
            "calibrate Qwen/Qwen2-0.5B --depth gram --data builtin:calibration --out gram.safetensors");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { data, output, depth, format, inputs, processOutput, partition, force, strict }) verb.Options.Add(option);
        windows.AddTo(verb);
        verb.Options.Add(ModelOptions.Memory);
        verb.Options.Add(ModelOptions.Exact);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string? textArgument = session.Parsed.GetValue(data);
            string[] files = session.Get(inputs) ?? [];
            if (textArgument is null && files.Length == 0) throw new QuantException(ErrorKind.Usage, "there is nothing to collect from") { Remedy = "Add --data TEXT, or --in FILE." };
            string target = session.Get(output);
            if (session.Get(depth) == "gram" && (session.Parsed.GetValue(format) is not null || session.Get(processOutput)))
            {
                throw new QuantException(ErrorKind.Usage, "--format and --process-output belong to --depth diagonal") { Remedy = "Leave them out." };
            }

            CalibrationJob job = new(target, Format(session.Parsed.GetValue(format), target), files, session.Get(force), session.Get(strict));
            using Checkpoint checkpoint = Checkpoint.Open(session.Get(model), session.Context);
            EvaluationText? text = textArgument is null ? null : EvaluationText.Load(session.Context.Files, textArgument, Console.OpenStandardInput());
            CalibrationOptions options = windows.Read(session) with { ProcessOutput = session.Get(processOutput), Partition = session.Parsed.GetValue(partition) is { } part ? Share.Parse(part, partition.Name) : null };
            CalibrationReport report = session.Get(depth) == "gram"
                ? new GramCalibration(target, files, session.Get(force)).Run(checkpoint, text, options, session.Context)
                : job.Run(checkpoint, text, options, session.Context);
            session.Print(report, ReportJson.Default.CalibrationReport, writer => CalibrationText.Write(writer, report));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static ImatrixFormat Format(string? asked, string target) =>
        asked == "dat" || (asked is null && target.EndsWith(".dat", StringComparison.OrdinalIgnoreCase)) ? ImatrixFormat.Dat : ImatrixFormat.Gguf;
}
