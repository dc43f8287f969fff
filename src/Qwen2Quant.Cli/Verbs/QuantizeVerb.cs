using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

internal static class QuantizeVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        RecipeOptionSet recipes = new();
        Option<string> output = ModelOptions.Out();
        Option<string> effort = new("--effort")
        {
            Description = "How hard the codes are searched: reference is llama.cpp's own path, for mlx: MLX's, byte for byte; fast has its error or less in less time; normal and high have smaller errors",
            HelpName = "reference|fast|normal|high",
            DefaultValueFactory = _ => "normal",
        };
        effort.AcceptOnlyFromAmong("reference", "fast", "normal", "high");
        Option<string?> shardSize = new("--max-shard-size") { Description = "Most bytes of tensors in one safetensors file, for example 5GB or 500MB; 5GB if not given", HelpName = "SIZE" };
        Option<bool> force = ModelOptions.Force();
        Option<bool> resume = ModelOptions.Resume();
        Option<bool> strict = ModelOptions.Strict();
        Option<bool> dryRun = ModelOptions.DryRun();
        Option<bool> modelfile = new("--modelfile") { Description = "Write PATH.Modelfile for Ollama beside the GGUF file" };
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
            "quantize ./Qwen2-0.5B --to gguf:Q4_K_M --out qwen2.gguf --dry-run",
            "quantize Qwen/Qwen2-7B --to gguf:IQ2_M --out qwen2-7b-IQ2_M.gguf --imatrix imatrix.gguf",
            "quantize Qwen/Qwen2-7B --to gguf:Q4_K_M --method gptq --calibration chats.txt --out qwen2-7b-Q4_K_M.gguf",
            "quantize Qwen/Qwen2-7B --to gptq:w4g128 --out qwen2-7b-gptq",
            "quantize qwen2-7b-BF16.gguf --to gguf --recipe mine.json --out qwen2-7b-mine.gguf");
        verb.Arguments.Add(model);
        verb.Options.Add(output);
        recipes.AddTo(verb);
        foreach (Option option in new Option[] { effort, shardSize, modelfile, force, resume, strict, dryRun, validate, failAbove, failBelow }) verb.Options.Add(option);
        importance.AddTo(verb);
        windows.AddTo(verb);
        verb.Options.Add(ModelOptions.Memory);
        verb.Options.Add(ModelOptions.Exact);
        verb.SetAction(parsed => run(parsed, session =>
        {
            QualityGate gate = QualityGate.Parse(session.Get(failAbove) ?? [], session.Get(failBelow) ?? []);
            string? textArgument = session.Parsed.GetValue(validate);
            if (textArgument is null && (session.Get(failAbove)?.Length > 0 || session.Get(failBelow)?.Length > 0))
            {
                throw new QuantException(ErrorKind.Usage, "--fail-above and --fail-below need a measurement") { Remedy = "Add --validate builtin:text." };
            }

            if (gate.NeedsGeneration) throw new QuantException(ErrorKind.Usage, "--validate generates no text") { Remedy = "Use compare --generate N --prompts FILE." };
            EvaluationText? text = textArgument is null ? null : EvaluationText.Load(session.Context.Files, textArgument, Console.OpenStandardInput());
            QuantizationChoices choices = importance.Read(session, windows, recipes.Read(session, new QuantizationChoices
            {
                Effort = session.Get(effort), MaxShardSize = session.Parsed.GetValue(shardSize), Strict = session.Get(strict), Modelfile = session.Get(modelfile),
            }));
            OutputHandling handling = new(session.Get(force), session.Get(resume), session.Get(dryRun));
            using QuantizationRequest request = QuantizationRequest.Open(session.Get(model), recipes.Scheme(session), session.Get(output), choices, handling, session.Context, Console.OpenStandardInput());
            ConversionReport report = request.Run();
            if (text is not null && !report.DryRun) report = request.Prove(report, text, windows.Read(session));
            session.Print(report, ReportJson.Default.ConversionReport, writer => ConversionText.Write(writer, report));
            return report.Validation is null ? ExitCodes.Done : GateReport.Apply(session, gate, report.Validation);
        }));
        return verb;
    }
}
