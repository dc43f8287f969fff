using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Reports;

namespace Qwen2Quant.Cli.Verbs;

internal static class InspectVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<bool> tensors = new("--tensors") { Description = "List every tensor" };
        Option<bool> metadata = new("--metadata") { Description = "List the metadata" };
        Verb verb = new(
            "inspect",
            "Lists configuration, tensors, types and sizes of a model from its headers.",
            "inspect builtin:tiny",
            "inspect qwen2-7b-Q4_0.gguf --tensors --metadata");
        verb.Arguments.Add(model);
        verb.Options.Add(tensors);
        verb.Options.Add(metadata);
        verb.SetAction(parsed => run(parsed, session =>
        {
            InspectionReport report = Inspection.Run(session.Get(model), session.Get(tensors), session.Get(metadata), session.Context);
            session.Print(report, ReportJson.Default.InspectionReport, output => Write(output, report));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static void Write(TextWriter output, InspectionReport report)
    {
        output.WriteLine($"{TextEscape.Escape(report.Model)}: {report.Container}");
        if (report.Architecture is not null)
        {
            output.WriteLine($"  {report.Architecture}: {report.Layers} layers, hidden {report.HiddenSize}, heads {report.Heads}/{report.KeyValueHeads}, vocabulary {report.VocabularySize}{(report.TiedEmbeddings == true ? " (tied)" : "")}, context {report.ContextLength}{(report.Experts is { } experts ? $", {experts} experts" : "")}");
        }

        output.WriteLine($"  {report.Parameters} parameters, {Format.Bytes(report.Bytes)} of tensors, {Format.Number(report.BitsPerWeight, "0.00")} bits per weight");
        foreach (TypeCensus type in report.Types) output.WriteLine($"  {type.Type,-9}{type.Tensors,6} tensors  {Format.Bytes(type.Bytes),12}");
        if (report.Problem is not null) output.WriteLine($"  not usable: {report.Problem}");
        foreach ((string key, string value) in report.Metadata ?? new Dictionary<string, string>()) output.WriteLine($"  {TextEscape.Escape(key)} = {value}");
        foreach (InspectedTensor tensor in report.Tensors ?? [])
        {
            output.WriteLine($"  {TextEscape.Escape(tensor.Name),-48} {tensor.Type,-8} [{string.Join(", ", tensor.Shape)}]");
        }
    }
}
