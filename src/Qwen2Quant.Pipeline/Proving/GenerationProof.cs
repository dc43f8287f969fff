using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Proving;

/// <summary>Continues the same prompts with two models and finds where they part.</summary>
public static class GenerationProof
{
    /// <summary>Greedy continuations: each token the first of the largest logits, no penalty, one model in memory after the other.</summary>
    /// <param name="prompts">At least one; begun with the token that the model wants before a text.</param>
    /// <param name="maxTokens">Tokens after each prompt, 1 at least; what ends a text for one of the models ends it for both.</param>
    /// <exception cref="QuantException">The models cut a prompt into different tokens, or cannot run.</exception>
    public static GenerationComparison Compare(Checkpoint baseCheckpoint, Checkpoint candidateCheckpoint, IReadOnlyList<string> prompts, int maxTokens, RunContext context)
    {
        Stopwatch watch = Stopwatch.StartNew();
        BpeTokenizer tokenizer = new(baseCheckpoint.Tokenizer.WithVocabularySize(baseCheckpoint.Config.VocabSize)), second = new(candidateCheckpoint.Tokenizer);
        int[][] tokens = new int[prompts.Count][];
        for (int i = 0; i < tokens.Length; i++)
        {
            Proof.RequireSameTokens(tokenizer, second, candidateCheckpoint.Location.Path, prompts[i]);
            tokens[i] = tokenizer.Encode(prompts[i], parseSpecial: false);
            if (tokenizer.LeadingId is { } leading) tokens[i] = [leading, .. tokens[i]];
        }

        HashSet<int> stops = [.. baseCheckpoint.StopTokens(tokenizer), .. candidateCheckpoint.StopTokens(second)];
        int[][] expected = Continue(baseCheckpoint, "base", tokens, maxTokens, stops, context);
        ProcessMemory.Settle();
        int[][] found = Continue(candidateCheckpoint, "candidate", tokens, maxTokens, stops, context);
        PromptComparison[] compared = [.. prompts.Select((prompt, i) => PromptComparison.Of(prompt, expected[i], found[i], ids => tokenizer.Decode(ids)))];
        return GenerationComparison.From(maxTokens, compared, watch.Elapsed.TotalSeconds);
    }

    private static int[][] Continue(Checkpoint checkpoint, string role, int[][] prompts, int maxTokens, HashSet<int> stops, RunContext context)
    {
        LoadedModel model = new(checkpoint, context);
        using IProgressTask progress = context.Progress.Start($"generate, {role}", (long)prompts.Length * maxTokens, "tokens");
        int[][] continuations = new int[prompts.Length][];
        for (int i = 0; i < prompts.Length; i++)
        {
            try
            {
                continuations[i] = [.. Generator.Generate(model.Model, prompts[i], new SamplingOptions(), maxTokens, stops, context.Cancellation).Select(Count)];
            }
            catch (QuantException error) when (error.Path is null)
            {
                throw error.In(checkpoint.Location.Path);
            }

            progress.Advance(maxTokens - continuations[i].Length);
        }

        return continuations;

        int Count(int token)
        {
            progress.Advance(1);
            return token;
        }
    }
}
