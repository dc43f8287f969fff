using System.Globalization;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>
/// Tokens cut into windows of equal length without overlap, as llama-perplexity cuts them: the remainder is dropped,
/// each window starts in a fresh context.
/// </summary>
public sealed class WindowPlan
{
    private readonly int[] _tokens;
    private readonly int[] _windows;

    private WindowPlan(int[] tokens, int[] windows, WindowOptions options)
    {
        _tokens = tokens;
        _windows = windows;
        Options = options;
    }

    public WindowOptions Options { get; }

    public int Context => Options.Context;

    /// <summary>Windows taken.</summary>
    public int WindowCount => _windows.Length;

    /// <summary>The first position of a window whose logits are scored; the last is <c>Context - 2</c>.</summary>
    public int FirstScored => FirstScoredPosition(Options);

    /// <summary>Positions scored in each window.</summary>
    public int ScoredPerWindow => Context - 1 - FirstScored;

    /// <summary>Positions scored in all windows.</summary>
    public long ScoredCount => (long)WindowCount * ScoredPerWindow;

    /// <summary>Cuts a tokenized text.</summary>
    /// <param name="tokens">The whole text, tokenized once.</param>
    /// <param name="textName">The text's name, for errors.</param>
    /// <exception cref="QuantException">Usage: an option is out of range. InvalidInput: the text is too short to score two tokens.</exception>
    public static WindowPlan Create(int[] tokens, WindowOptions options, string textName)
    {
        int smallestContext = options.Protocol == ScoringProtocol.Llama ? LogitFileLayout.SmallestContext : 2;
        if (options.Context < smallestContext) throw OutOfRange("--context", options.Context, smallestContext);
        int whole = tokens.Length / options.Context;
        int needed = options.Protocol == ScoringProtocol.Llama ? 2 : 1;
        if (whole < needed)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the text is too short for this context")
            {
                Rule = ValidationRules.UsableText,
                Path = textName,
                Found = string.Create(CultureInfo.InvariantCulture, $"{tokens.Length} tokens"),
                Expected = string.Create(CultureInfo.InvariantCulture, $"at least {(long)needed * options.Context} ({needed} x --context {options.Context})"),
                Remedy = "Give a longer text or a smaller --context.",
            };
        }

        return OfWindows(tokens, options, textName);
    }

    /// <summary>Takes of tokens that are whole windows already, one or more.</summary>
    /// <exception cref="QuantException">Usage: <c>--chunks</c> is out of range. InvalidInput: one token only would be scored.</exception>
    internal static WindowPlan OfWindows(int[] tokens, WindowOptions options, string textName)
    {
        if (options.Chunks is < 1) throw OutOfRange("--chunks", options.Chunks.Value, 1);
        int whole = tokens.Length / options.Context;
        int taken = Math.Min(whole, options.Chunks ?? whole);
        if ((long)taken * (options.Context - 1 - FirstScoredPosition(options)) < 2)
        {
            throw new QuantException(ErrorKind.InvalidInput, "only one token would be scored, which has no standard error")
            {
                Rule = ValidationRules.UsableText,
                Path = textName,
                Remedy = "Give a longer text, more --chunks or a larger --context.",
            };
        }

        int[] windows = new int[taken];
        for (int i = 0; i < taken; i++)
        {
            windows[i] = options.Sampling == WindowSampling.Spread ? (int)((long)i * whole / taken) : i;
        }

        return new WindowPlan(tokens, windows, options);
    }

    /// <summary>One of several parts of about as many windows each, in their order.</summary>
    /// <param name="index">From 0.</param>
    /// <exception cref="QuantException">Usage: there are fewer windows than parts.</exception>
    public WindowPlan Part(int index, int count)
    {
        if (count > WindowCount) throw new QuantException(ErrorKind.Usage, "there are fewer windows than parts") { Found = $"{WindowCount} windows", Expected = $"at least {count}", Remedy = "Cut into fewer parts, or give more --samples." };
        return new WindowPlan(_tokens, _windows[(int)((long)WindowCount * index / count)..(int)((long)WindowCount * (index + 1) / count)], Options);
    }

    /// <summary>The number, in the text, of window <paramref name="index"/> of those taken.</summary>
    public int WindowNumber(int index) => _windows[index];

    /// <summary>The text's own tokens of a window; the logits at position p predict number p + 1.</summary>
    public ReadOnlySpan<int> Tokens(int index) => _tokens.AsSpan(_windows[index] * Context, Context);

    /// <summary>The tokens that the model reads: the text's, after the begin token where there is one.</summary>
    public void CopyInput(int index, Span<int> destination)
    {
        Tokens(index).CopyTo(destination);
        if (Options.BeginToken is { } begin) destination[0] = begin;
    }

    /// <summary>Refuses tokens that the model has no logit for.</summary>
    /// <exception cref="QuantException">InvalidInput: a token of a window is outside the vocabulary.</exception>
    public void CheckVocabulary(int vocabularySize)
    {
        int[] input = new int[Context];
        for (int index = 0; index < WindowCount; index++)
        {
            CopyInput(index, input);
            Check(input, WindowNumber(index));
            Check(Tokens(index), WindowNumber(index));
        }

        void Check(ReadOnlySpan<int> tokens, int window)
        {
            for (int position = 0; position < tokens.Length; position++)
            {
                if ((uint)tokens[position] < (uint)vocabularySize) continue;
                throw new QuantException(ErrorKind.InvalidInput, "a token of the text is outside the model's vocabulary")
                {
                    Found = string.Create(CultureInfo.InvariantCulture, $"token {tokens[position]} at window {window}, position {position}"),
                    Expected = string.Create(CultureInfo.InvariantCulture, $"0 to {vocabularySize - 1}"),
                    Remedy = "Use the tokenizer that belongs to the model.",
                };
            }
        }
    }

    private static int FirstScoredPosition(WindowOptions options) => options.Protocol == ScoringProtocol.Llama ? options.Context / 2 : 0;

    private static QuantException OutOfRange(string option, int found, int smallest) =>
        new(ErrorKind.Usage, $"{option} is out of range")
        {
            Found = found.ToString(CultureInfo.InvariantCulture),
            Expected = string.Create(CultureInfo.InvariantCulture, $"at least {smallest}"),
        };
}
