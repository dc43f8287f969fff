using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

internal static class QuantizeVerb
{
    private const string GgufPrefix = "gguf:";

    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> to = new("--to") { Description = "Scheme of the output, for example gguf:Q4_0; `types` lists them", HelpName = "SCHEME", Required = true };
        Option<string> output = ModelOptions.Out();
        Option<string> effort = new("--effort") { Description = "How the codes are searched; reference is llama.cpp's own path, byte for byte", HelpName = "reference", DefaultValueFactory = _ => "reference" };
        effort.AcceptOnlyFromAmong("reference");
        Option<bool> pure = new("--pure") { Description = "The scheme's plain type for every matrix, no mixture" };
        Option<string?> outputType = new("--output-type") { Description = "Type of the output matrix", HelpName = "TYPE" };
        Option<string?> embeddingType = new("--embedding-type") { Description = "Type of the token embedding", HelpName = "TYPE" };
        Option<bool> leaveOutput = new("--leave-output-tensor") { Description = "Leave output.weight in the source's type" };
        Option<string[]> tensorType = new("--tensor-type") { Description = "Type of the tensors whose lower-cased GGUF name a regular expression finds; repeatable, the first match wins", HelpName = "PATTERN=TYPE" };
        Option<bool> allowRequantize = new("--allow-requantize") { Description = "Quantize a source that is quantized already" };
        Option<bool> force = ModelOptions.Force();
        Option<bool> strict = ModelOptions.Strict();
        Option<bool> dryRun = ModelOptions.DryRun();
        Option<string?> validate = new("--validate") { Description = "Prove the result on a text at once: " + ModelOptions.TextHelp, HelpName = "TEXT" };
        Option<string[]> failAbove = ModelOptions.FailAbove();
        Option<string[]> failBelow = ModelOptions.FailBelow();
        WindowOptionSet windows = new(Proof.DefaultValidationChunks);
        ImportanceOptionSet importance = new();
        Verb verb = new(
            "quantize",
            "Quantizes a model, verifies what was written, and measures what it cost.",
            "quantize builtin:tiny --to gguf:Q4_0 --out tiny-Q4_0.gguf --validate builtin:text",
            "quantize Qwen/Qwen2-7B-Instruct --to gguf:Q8_0 --out qwen2-7b-Q8_0.gguf --validate wiki.test.raw --fail-above mean_kld=0.01",
            "quantize Qwen/Qwen2-0.5B --to gguf:Q4_0 --out qwen2.gguf --imatrix imatrix.gguf",
            "quantize ./Qwen2-0.5B --to gguf:Q5_1 --out qwen2.gguf --dry-run");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { to, output, effort, pure, outputType, embeddingType, leaveOutput, tensorType, allowRequantize, force, strict, dryRun, validate, failAbove, failBelow })
        {
            verb.Options.Add(option);
        }

        importance.AddTo(verb);
        windows.AddTo(verb);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string scheme = session.Get(to);
            Recipe recipe = FindRecipe(scheme);
            RecipeOptions recipeOptions = new()
            {
                Pure = session.Get(pure),
                OutputType = Writable(session.Parsed.GetValue(outputType)),
                EmbeddingType = Writable(session.Parsed.GetValue(embeddingType)),
                LeaveOutputTensor = session.Get(leaveOutput),
                TensorTypes = [.. (session.Get(tensorType) ?? []).Select(TensorTypeOverride.Parse)],
            };
            QualityGate gate = QualityGate.Parse(session.Get(failAbove) ?? [], session.Get(failBelow) ?? []);
            string? textArgument = session.Parsed.GetValue(validate);
            if (textArgument is null && (session.Get(failAbove)?.Length > 0 || session.Get(failBelow)?.Length > 0))
            {
                throw new QuantException(ErrorKind.Usage, "--fail-above and --fail-below need a measurement") { Remedy = "Add --validate builtin:text." };
            }

            EvaluationText? text = textArgument is null ? null : EvaluationText.Load(session.Context.Files, textArgument, Console.OpenStandardInput());
            using Checkpoint source = Checkpoint.Open(session.Get(model), session.Context);
            // Before statistics are collected, which takes longest.
            PendingOutput.CheckTarget(session.Context.Files, session.Get(output), isFolder: false, session.Get(force), [], plannedBytes: 0);
            Importance? weights = importance.Read(session, source, windows, session.Get(strict), session.Get(dryRun));
            ConversionPlan plan = GgufPlanner.PlanQuantization(source, recipe, recipeOptions, session.Get(allowRequantize), session.Get(output), session.Context, weights);
            ConversionOptions options = new(GgufPrefix + recipe.Name, session.Get(force), session.Get(strict), session.Get(dryRun));
            Conversion conversion = new(source, plan, options, session.Context);
            ConversionReport report = conversion.Run();
            if (text is not null && !report.DryRun)
            {
                using Checkpoint published = Checkpoint.Open(plan.Target, session.Context);
                report = report with { Validation = Proof.Compare(source, published, text, windows.Read(session), session.Context) };
                conversion.WriteReport(report);
            }

            session.Print(report, ReportJson.Default.ConversionReport, writer => ConversionText.Write(writer, report));
            return report.Validation is null ? ExitCodes.Done : GateReport.Apply(session, gate, report.Validation);
        }));
        return verb;
    }

    private static Recipe FindRecipe(string scheme)
    {
        string[] known = [.. RecipeBook.BuiltIn.Recipes.Select(recipe => GgufPrefix + recipe.Name)];
        Recipe? recipe = scheme.StartsWith(GgufPrefix, StringComparison.OrdinalIgnoreCase) ? RecipeBook.BuiltIn.Find(scheme[GgufPrefix.Length..]) : null;
        return recipe ?? throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = scheme, Expected = string.Join(", ", known) };
    }

    private static ElementType? Writable(string? name) => name is null ? null : TypeChooser.RequireWritable(name);
}
