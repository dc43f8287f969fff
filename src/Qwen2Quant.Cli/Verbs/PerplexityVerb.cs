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
        WindowOptionSet windows = new();
        Verb verb = new(
            "perplexity",
            "Measures the perplexity of a model on a text, with its standard error.",
            "perplexity builtin:tiny --data builtin:text --chunks 8",
            "perplexity Qwen/Qwen2-0.5B --data wiki.test.raw --json");
        verb.Arguments.Add(model);
        verb.Options.Add(data);
        windows.AddTo(verb);
        verb.Options.Add(ModelOptions.Memory);
        verb.SetAction(parsed => run(parsed, session =>
        {
            using Checkpoint checkpoint = Checkpoint.Open(session.Get(model), session.Context);
            EvaluationText text = EvaluationText.Load(session.Context.Files, session.Get(data), Console.OpenStandardInput());
            PerplexityResult result = Proof.Perplexity(checkpoint, text, windows.Read(session), session.Context);
            session.Print(result, ValidationJson.Default.PerplexityResult, output => output.WriteLine(
                $"perplexity {Format.Number(result.Perplexity, "0.0000")} ± {Format.Number(result.StandardError, "0.0000")} over {result.Tokens} tokens, {result.Chunks} windows of {result.Context}, {Format.Number(result.Seconds, "0.0")} s"));
            return ExitCodes.Done;
        }));
        return verb;
    }
}
