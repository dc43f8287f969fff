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
    /// <param name="saveLogits">Where the logits go; null for nowhere.</param>
    public static PerplexityResult Perplexity(
        Checkpoint checkpoint, EvaluationText text, WindowOptions options, RunContext context, bool withActivations = false, LogitTarget? saveLogits = null)
    {
        if (saveLogits is not null) LogitRecording.CheckTarget(saveLogits, [checkpoint], text, options, context);
        ActivationMaxima? maxima = withActivations ? new(context.Threads) : null;
        LoadedModel model = LoadedModel.ForWindows(checkpoint, context, maxima);
        WindowPlan windows = Windows(model.Tokenizer, text, options);
        using LogitRecording? recording = saveLogits is null ? null : LogitRecording.Begin(model, [checkpoint], text, windows, saveLogits, context);
        RunOptions run = LoadedModel.Prepare([model], windows, context, Held(recording));
        PerplexityResult result = PerplexityRun.Run(recording is null ? model : recording, windows, run, context.Cancellation);
        recording?.Publish();
        return maxima is null ? result : result with { Activations = maxima.Report(windows, context.Events) };
    }

    /// <summary>Runs both over the base's tokens of the text; refuses models whose tokenizers cut it differently.</summary>
    /// <param name="withActivations">Also finds the largest inputs of the linear layers of both.</param>
    /// <param name="saveLogits">Where the base's logits go; null for nowhere.</param>
    public static ComparisonResult Compare(
        Checkpoint baseCheckpoint, Checkpoint candidateCheckpoint, EvaluationText text, WindowOptions options, RunContext context, bool withActivations = false, LogitTarget? saveLogits = null)
    {
        if (saveLogits is not null) LogitRecording.CheckTarget(saveLogits, [baseCheckpoint, candidateCheckpoint], text, options, context);
        ActivationMaxima? baseMaxima = withActivations ? new(context.Threads) : null, candidateMaxima = withActivations ? new(context.Threads) : null;
        LoadedModel baseModel = LoadedModel.ForWindows(baseCheckpoint, context, baseMaxima);
        LoadedModel candidate = LoadedModel.ForWindows(candidateCheckpoint, context, candidateMaxima);
        RequireSameTokens(baseModel.Tokenizer, candidate, text.Text);
        WindowPlan windows = Windows(baseModel.Tokenizer, text, options);
        using LogitRecording? recording = saveLogits is null ? null : LogitRecording.Begin(baseModel, [baseCheckpoint, candidateCheckpoint], text, windows, saveLogits, context);
        RunOptions run = LoadedModel.Prepare([baseModel, candidate], windows, context, Held(recording));
        ComparisonResult result = ComparisonRun.Run(recording is null ? baseModel : recording, candidate, windows, ids => baseModel.Tokenizer.Decode([.. ids]), run, context.Cancellation);
        recording?.Publish();
        if (baseMaxima is null || candidateMaxima is null) return result;
        return result with { Activations = new ActivationComparison(baseMaxima.Report(windows, context.Events), candidateMaxima.Report(windows, context.Events)) };
    }

    /// <summary>Runs the candidate over the windows of a file, whose logits are the base's.</summary>
    /// <param name="baseCheckpoint">The model that the file is said to be of: its tokenizer is held against the file and the candidate's; it does not run. Null for none.</param>
    /// <param name="text">Refused where its tokens are not the file's; null goes by the file alone.</param>
    /// <exception cref="QuantException">LG-1 to LG-3: the file cannot stand for the base.</exception>
    public static ComparisonResult Compare(LogitFile baseLogits, Checkpoint? baseCheckpoint, Checkpoint candidateCheckpoint, EvaluationText? text, WindowOptions options, RunContext context)
    {
        WindowPlan windows = baseLogits.Plan(options);
        LoadedModel candidate = LoadedModel.ForWindows(candidateCheckpoint, context);
        ITokenizer tokenizer = candidate.Tokenizer;
        baseLogits.RequireVocabulary(candidate.VocabularySize);
        if (baseCheckpoint is not null)
        {
            baseLogits.RequireVocabulary(baseCheckpoint.Config.VocabSize);
            RequireSameTokens(new BpeTokenizer(baseCheckpoint.Tokenizer), candidate, text?.Text ?? tokenizer.Decode(baseLogits.Tokens(0)));
        }

        if (text is not null) baseLogits.RequireTokensOf(tokenizer.Encode(text.Text, parseSpecial: false), text.Name);
        else RequireTokenizer(baseLogits, tokenizer);
        windows = baseLogits.Plan(options with { BeginToken = tokenizer.LeadingId });
        RunOptions run = LoadedModel.Prepare([candidate], windows, context, baseLogits.HeldBytes(windows));
        return ComparisonRun.Run(baseLogits, candidate, windows, ids => tokenizer.Decode([.. ids]), run, context.Cancellation);
    }

    /// <summary>Refuses a second tokenizer that cuts a text into other tokens.</summary>
    internal static void RequireSameTokens(ITokenizer first, ITokenizer second, string secondPath, string text)
    {
        const int sampleLength = 10_000;
        ReadOnlySpan<char> sample = text.AsSpan(0, Math.Min(sampleLength, text.Length));
        if (first.Encode(sample, parseSpecial: false).AsSpan().SequenceEqual(second.Encode(sample, parseSpecial: false))) return;
        throw new QuantException(ErrorKind.InvalidInput, "the two models cut the text into different tokens")
        {
            Path = secondPath,
            Remedy = "Compare a model with a conversion of itself.",
        };
    }

    private static void RequireSameTokens(ITokenizer first, LoadedModel second, string text) => RequireSameTokens(first, second.Tokenizer, second.Checkpoint.Location.Path, text);

    /// <summary>
    /// A file without its text shows whose tokens it holds: the text of the first window, cut again, gives the same ones. Near the end of the
    /// window it may not, where the window ends within a word; so half of it is compared.
    /// </summary>
    private static void RequireTokenizer(LogitFile file, ITokenizer tokenizer)
    {
        ReadOnlySpan<int> tokens = file.Tokens(0);
        if (tokens[0] == tokenizer.LeadingId) tokens = tokens[1..];
        int same = tokens.CommonPrefixLength(tokenizer.Encode(tokenizer.Decode(tokens), parseSpecial: false));
        if (same >= tokens.Length / 2) return;
        throw file.Another(
            "the file holds tokens of another tokenizer than the model's",
            $"token {tokens[same]} at position {same}, where the model's tokenizer cuts the same text otherwise",
            "the tokens of the model's tokenizer",
            "Give a conversion of the model that the file was made with; or add --data TEXT, which is compared instead.");
    }

    private static long Held(LogitRecording? recording) => recording?.HeldBytes ?? 0;

    private static WindowPlan Windows(ITokenizer tokenizer, EvaluationText text, WindowOptions options) =>
        WindowPlan.Create(tokenizer.Encode(text.Text, parseSpecial: false), options with { BeginToken = tokenizer.LeadingId }, text.Name);
}
