using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

internal static class CompareVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> baseModel = ModelOptions.Model("BASE");
        Argument<string> candidateModel = ModelOptions.Model("CANDIDATE");
        Option<string> data = new("--data") { Description = ModelOptions.TextHelp, HelpName = "TEXT", Required = true };
        Option<string[]> failAbove = ModelOptions.FailAbove();
        Option<string[]> failBelow = ModelOptions.FailBelow();
        Option<bool> activations = ModelOptions.Activations();
        WindowOptionSet windows = new();
        Option<string?> dualChunk = ModelOptions.DualChunk();
        Verb verb = new(
            "compare",
            "Measures what a conversion cost: perplexity of both models, KL divergence, top-token agreement, the worst positions.",
            "compare builtin:tiny tiny-Q4_0.gguf --data builtin:text --chunks 16",
            "compare Qwen/Qwen2-7B qwen2-7b-Q8_0.gguf --data wiki.test.raw --fail-above mean_kld=0.01 --json");
        verb.Arguments.Add(baseModel);
        verb.Arguments.Add(candidateModel);
        verb.Options.Add(data);
        verb.Options.Add(failAbove);
        verb.Options.Add(failBelow);
        verb.Options.Add(activations);
        windows.AddTo(verb);
        verb.Options.Add(dualChunk);
        verb.Options.Add(ModelOptions.Memory);
        verb.SetAction(parsed => run(parsed, session =>
        {
            QualityGate gate = QualityGate.Parse(session.Get(failAbove) ?? [], session.Get(failBelow) ?? []);
            using Checkpoint original = ModelOptions.Open(session, baseModel, dualChunk);
            using Checkpoint candidate = ModelOptions.Open(session, candidateModel, dualChunk);
            EvaluationText text = EvaluationText.Load(session.Context.Files, session.Get(data), Console.OpenStandardInput());
            ComparisonResult result = Proof.Compare(original, candidate, text, windows.Read(session), session.Context, session.Get(activations));
            session.Print(result, ValidationJson.Default.ComparisonResult, output =>
            {
                ComparisonText.Write(output, result, withWorst: true);
                ActivationText.Write(output, result.Activations?.Base, "the base");
                ActivationText.Write(output, result.Activations?.Candidate, "the candidate");
            });
            return GateReport.Apply(session, gate, result);
        }));
        return verb;
    }
}
