using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Verbs;

internal static class PerplexityVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> data = new("--data") { Description = ModelOptions.TextHelp, HelpName = "TEXT", Required = true };
        Option<bool> activations = ModelOptions.Activations();
        Option<string?> saveLogits = ModelOptions.SaveLogits("the");
        Option<bool> force = ModelOptions.Force();
        WindowOptionSet windows = new();
        Option<string?> dualChunk = ModelOptions.DualChunk();
        Verb verb = new(
            "perplexity",
            "Measures the perplexity of a model on a text, with its standard error.",
            "perplexity builtin:tiny --data builtin:text --chunks 8",
            "perplexity Qwen/Qwen2-0.5B --data wiki.test.raw --json",
            "perplexity qwen2-7b-BF16.gguf --data wiki.test.raw --chunks 20 --save-logits qwen2-7b.kld");
        verb.Arguments.Add(model);
        verb.Options.Add(data);
        verb.Options.Add(activations);
        verb.Options.Add(saveLogits);
        verb.Options.Add(force);
        windows.AddTo(verb);
        verb.Options.Add(dualChunk);
        verb.Options.Add(ModelOptions.Memory);
        verb.Options.Add(ModelOptions.Exact);
        verb.SetAction(parsed => run(parsed, session =>
        {
            using Checkpoint checkpoint = ModelOptions.Open(session, model, dualChunk);
            EvaluationText text = EvaluationText.Load(session.Context.Files, session.Get(data), Console.OpenStandardInput());
            PerplexityResult result = Proof.Perplexity(checkpoint, text, windows.Read(session), session.Context, session.Get(activations), ModelOptions.LogitTarget(session, saveLogits, force));
            session.Print(result, ValidationJson.Default.PerplexityResult, output =>
            {
                output.WriteLine($"perplexity {Format.Number(result.Perplexity, "0.0000")} ± {Format.Number(result.StandardError, "0.0000")} over {result.Tokens} tokens, {result.Chunks} windows of {result.Context}, {Format.Number(result.Seconds, "0.0")} s");
                ActivationText.Write(output, result.Activations);
            });
            return ExitCodes.Done;
        }));
        return verb;
    }
}
