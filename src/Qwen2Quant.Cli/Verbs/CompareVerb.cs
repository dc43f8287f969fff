using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

internal static class CompareVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> first = ModelOptions.Model("BASE");
        first.Description = "The model to compare with; with --logits, which then is the base, it may be left out. " + ModelOptions.ModelHelp;
        Argument<string> second = new("CANDIDATE") { Description = "The model that is judged, given in the same ways", Arity = ArgumentArity.ZeroOrOne };
        Option<string?> data = new("--data") { Description = ModelOptions.TextHelp, HelpName = "TEXT" };
        Option<string?> saveLogits = ModelOptions.SaveLogits("the base's");
        Option<bool> force = ModelOptions.Force();
        Option<string?> logits = new("--logits") { Description = "The base's logits and the text's tokens from a file of --save-logits or llama-perplexity; --data is then only checked against it", HelpName = "FILE" };
        Option<int?> generate = new("--generate") { Description = "Continue each of --prompts greedily by so many tokens with both models, and report where they part", HelpName = "N" };
        Option<string?> prompts = new("--prompts") { Description = "Prompts of --generate, one a line, empty lines left out: a UTF-8 file, or - for standard input", HelpName = "FILE" };
        Option<string[]> failAbove = ModelOptions.FailAbove();
        Option<string[]> failBelow = ModelOptions.FailBelow();
        Option<bool> activations = ModelOptions.Activations();
        WindowOptionSet windows = new();
        Option<string?> dualChunk = ModelOptions.DualChunk();
        Verb verb = new(
            "compare",
            "Measures what a conversion cost: perplexity of both models, KL divergence, top-token agreement, the worst positions; where generated texts part.",
            "compare builtin:tiny tiny-Q4_0.gguf --data builtin:text --chunks 16",
            "compare Qwen/Qwen2-7B qwen2-7b-Q8_0.gguf --data wiki.test.raw --fail-above mean_kld=0.01 --json",
            "compare qwen2-7b-BF16.gguf qwen2-7b-Q8_0.gguf --data wiki.test.raw --chunks 20 --save-logits qwen2-7b.kld",
            "compare qwen2-7b-Q4_K_M.gguf --logits qwen2-7b.kld",
            "compare Qwen/Qwen2-7B qwen2-7b-Q8_0.gguf --generate 64 --prompts questions.txt --fail-below generation.identical_share=0.5");
        verb.Arguments.Add(first);
        verb.Arguments.Add(second);
        foreach (Option option in new Option[] { data, saveLogits, force, logits, generate, prompts, failAbove, failBelow, activations }) verb.Options.Add(option);
        windows.AddTo(verb);
        verb.Options.Add(dualChunk);
        verb.Options.Add(ModelOptions.Memory);
        verb.Options.Add(ModelOptions.Exact);
        verb.SetAction(parsed => run(parsed, session =>
        {
            QualityGate gate = QualityGate.Parse(session.Get(failAbove) ?? [], session.Get(failBelow) ?? []);
            string? dataArgument = session.Parsed.GetValue(data), logitsArgument = session.Parsed.GetValue(logits), promptsArgument = session.Parsed.GetValue(prompts);
            LogitTarget? target = ModelOptions.LogitTarget(session, saveLogits, force);
            int? tokens = session.Parsed.GetValue(generate);
            bool hasBase = session.Parsed.GetValue(second) is not null, readsText = dataArgument is not null || logitsArgument is not null;
            CheckUsage();

            using Checkpoint? original = hasBase ? ModelOptions.Open(session, first, dualChunk) : null;
            using Checkpoint candidate = ModelOptions.Open(session, hasBase ? second : first, dualChunk);
            EvaluationText? text = Load(dataArgument);
            IReadOnlyList<string>? lines = Load(promptsArgument) is { } read ? Prompts.Of(read) : null;
            ComparisonResult? result = !readsText ? null : logitsArgument is null
                ? Proof.Compare(original!, candidate, text!, windows.Read(session), session.Context, session.Get(activations), target)
                : CompareWithFile(logitsArgument);
            GenerationComparison? generation = lines is null ? null : GenerationProof.Compare(original!, candidate, lines, tokens!.Value, session.Context);
            if (result is null) session.Print(new GenerationDocument(generation!), ValidationJson.Default.GenerationDocument, output => GenerationText.Write(output, generation!));
            else Print(result with { Generation = generation });
            return GateReport.Apply(session, gate, result, generation);

            EvaluationText? Load(string? argument) => argument is null ? null : EvaluationText.Load(session.Context.Files, argument, Console.OpenStandardInput());

            ComparisonResult CompareWithFile(string path)
            {
                using LogitFile file = LogitFile.Open(session.Context.Files, path);
                return Proof.Compare(file, original, candidate, text, windows.Read(session, file.Layout.Context), session.Context);
            }

            void Print(ComparisonResult whole) => session.Print(whole, ValidationJson.Default.ComparisonResult, output =>
            {
                ComparisonText.Write(output, whole, withWorst: true);
                ActivationText.Write(output, whole.Activations?.Base, "the base");
                ActivationText.Write(output, whole.Activations?.Candidate, "the candidate");
                if (whole.Generation is not null) GenerationText.Write(output, whole.Generation);
            });

            void CheckUsage()
            {
                if (!hasBase && logitsArgument is null) throw Usage("CANDIDATE is missing", "Give BASE and CANDIDATE, or CANDIDATE alone with --logits FILE.");
                if (!readsText && tokens is null && promptsArgument is null) throw Usage("there is nothing to compare on", "Add --data TEXT, or --logits FILE, or --generate N --prompts FILE.");
                if (tokens is null != promptsArgument is null) throw Usage("--generate and --prompts need each other", "Write for example --generate 64 --prompts questions.txt.");
                if (tokens < 1) throw Usage("--generate must be at least 1", null);
                if (tokens is not null && !hasBase) throw Usage("--generate runs both models", "Give BASE and CANDIDATE.");
                if (target is not null && logitsArgument is not null) throw Usage("--save-logits would copy the file of --logits", "Leave out one of them.");
                if (target is not null && dataArgument is null) throw Usage("--save-logits needs a text", "Add --data TEXT.");
                if (session.Get(activations) && (dataArgument is null || logitsArgument is not null)) throw Usage("--activations runs both models on a text", "Add --data TEXT, and leave out --logits.");
                if (!readsText && windows.FirstGiven(session) is { } given) throw Usage($"{given} is for a text", "Add --data TEXT.");
                if (gate.NeedsText && !readsText) throw Usage("a limit is on a figure of a text", "Add --data TEXT.");
                if (gate.NeedsGeneration && tokens is null) throw Usage("a limit is on a figure of generated text", "Add --generate N --prompts FILE.");
            }
        }));
        return verb;
    }

    private static QuantException Usage(string summary, string? remedy) => new(ErrorKind.Usage, summary) { Remedy = remedy };
}
