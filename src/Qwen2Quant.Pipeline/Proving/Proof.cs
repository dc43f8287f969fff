using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Proving;

/// <summary>Measures models on a text.</summary>
public static class Proof
{
    /// <summary>Windows that <c>--validate</c> takes unless told otherwise: enough for a figure, few enough to wait for.</summary>
    public const int DefaultValidationChunks = 16;

    /// <param name="withActivations">Also finds the largest inputs of the linear layers.</param>
    public static PerplexityResult Perplexity(Checkpoint checkpoint, EvaluationText text, WindowOptions options, RunContext context, bool withActivations = false)
    {
        ActivationMaxima? maxima = withActivations ? new(context.Threads) : null;
        LoadedModel model = LoadedModel.ForWindows(checkpoint, context, maxima);
        WindowPlan windows = Windows(model.Tokenizer, text, options);
        PerplexityResult result = PerplexityRun.Run(model, windows, LoadedModel.Prepare([model], windows, context), context.Cancellation);
        return maxima is null ? result : result with { Activations = maxima.Report(windows, context.Events) };
    }

    /// <summary>Runs both over the base's tokens of the text; refuses models whose tokenizers cut it differently.</summary>
    /// <param name="withActivations">Also finds the largest inputs of the linear layers of both.</param>
    public static ComparisonResult Compare(Checkpoint baseCheckpoint, Checkpoint candidateCheckpoint, EvaluationText text, WindowOptions options, RunContext context, bool withActivations = false)
    {
        ActivationMaxima? baseMaxima = withActivations ? new(context.Threads) : null, candidateMaxima = withActivations ? new(context.Threads) : null;
        LoadedModel baseModel = LoadedModel.ForWindows(baseCheckpoint, context, baseMaxima);
        LoadedModel candidate = LoadedModel.ForWindows(candidateCheckpoint, context, candidateMaxima);
        RequireSameTokens(baseModel, candidate, text);
        WindowPlan windows = Windows(baseModel.Tokenizer, text, options);
        ComparisonResult result = ComparisonRun.Run(
            baseModel,
            candidate,
            windows,
            ids => baseModel.Tokenizer.Decode([.. ids]),
            LoadedModel.Prepare([baseModel, candidate], windows, context),
            context.Cancellation);
        if (baseMaxima is null || candidateMaxima is null) return result;
        return result with { Activations = new ActivationComparison(baseMaxima.Report(windows, context.Events), candidateMaxima.Report(windows, context.Events)) };
    }

    private static void RequireSameTokens(LoadedModel baseModel, LoadedModel candidate, EvaluationText text)
    {
        const int sampleLength = 10_000;
        ReadOnlySpan<char> sample = text.Text.AsSpan(0, Math.Min(sampleLength, text.Text.Length));
        if (baseModel.Tokenizer.Encode(sample, parseSpecial: false).AsSpan().SequenceEqual(candidate.Tokenizer.Encode(sample, parseSpecial: false))) return;
        throw new QuantException(ErrorKind.InvalidInput, "the two models cut the text into different tokens")
        {
            Path = candidate.Checkpoint.Location.Path,
            Remedy = "Compare a model with a conversion of itself.",
        };
    }

    private static WindowPlan Windows(ITokenizer tokenizer, EvaluationText text, WindowOptions options) =>
        WindowPlan.Create(tokenizer.Encode(text.Text, parseSpecial: false), options with { BeginToken = tokenizer.LeadingId }, text.Name);
}
