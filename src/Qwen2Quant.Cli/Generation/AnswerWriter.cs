using System.Diagnostics;
using System.Globalization;
using System.Text;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Cli.Generation;

/// <summary>Generates texts and writes them to standard output as they come.</summary>
/// <param name="StopTokens">Tokens that end an answer.</param>
/// <param name="MaxTokens">Tokens of an answer at most; null for as many as the context holds.</param>
internal sealed record AnswerWriter(Session Session, ITokenizer Tokenizer, Qwen2Config Config, Generator Generator, IReadOnlySet<int> StopTokens, int? MaxTokens)
{
    // Shorter ones are read before a bar could be seen.
    private const int ShownPrompt = 512;

    private bool _warned;

    /// <summary>Continues a prompt. A cancellation ends the answer and is no error.</summary>
    public GenerateResult Write(int[] prompt, CancellationToken cancellation)
    {
        Warn(prompt.Length);
        Session.ShowEvents();
        StreamingDecoder decoder = new(Tokenizer, skipControl: true);
        List<int> tokens = [];
        StringBuilder text = new();
        Stopwatch watch = Stopwatch.StartNew();
        int run = 0, chosen = 0;
        double promptSeconds = 0;
        string? reason = null;
        try
        {
            run = Read(prompt, cancellation);
            promptSeconds = watch.Elapsed.TotalSeconds;
            while (reason is null)
            {
                reason = tokens.Count == MaxTokens ? "max_tokens" : Generator.Tokens.Count == Generator.Capacity ? "context" : null;
                if (reason is not null) break;
                cancellation.ThrowIfCancellationRequested();
                int token = Generator.Next(cancellation);
                chosen++;
                if (StopTokens.Contains(token))
                {
                    reason = "stop_token";
                    break;
                }

                tokens.Add(token);
                Show(decoder.Push(token));
            }
        }
        catch (OperationCanceledException)
        {
            reason = "interrupted";
        }

        Show(decoder.Finish());
        Warn(Generator.Tokens.Count);
        double seconds = watch.Elapsed.TotalSeconds, answerSeconds = seconds - promptSeconds;
        // The first token comes from the logits of the prompt.
        double? speed = chosen > 1 ? (chosen - 1) / answerSeconds : null;
        if (Session.Verbose) Describe();
        return new GenerateResult(null, text.ToString(), tokens, reason, prompt.Length, run, seconds, promptSeconds > 0 ? run / promptSeconds : 0, speed, null);

        void Show(string piece)
        {
            text.Append(piece);
            if (Session.Json || piece.Length == 0) return;
            Session.Out.Write(piece);
            Session.Out.Flush();
        }

        void Describe() => Session.Error.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"\n{prompt.Length} tokens of prompt, {run} of them run at {run / promptSeconds:0.0}/s; {tokens.Count} tokens at {speed ?? 0:0.0}/s; ended by {reason}"));
    }

    private int Read(int[] prompt, CancellationToken cancellation)
    {
        int count = prompt.Length - Generator.KeptLength(prompt);
        using IProgressTask progress = (count > ShownPrompt ? Session.Context.Progress : NoProgress.Instance).Start("Reading the prompt", count, "tokens");
        return Generator.Read(prompt, progress, cancellation);
    }

    private void Warn(int length)
    {
        if (_warned || length <= Config.UsableLength) return;
        _warned = true;
        string remedy = Config.RopeScaling is null
            ? string.Create(CultureInfo.InvariantCulture, $"YaRN stretches it: in config.json \"rope_scaling\": {{\"type\": \"yarn\", \"factor\": {Math.Ceiling((double)length / Config.MaxPositionEmbeddings)}, \"original_max_position_embeddings\": {Config.MaxPositionEmbeddings}}}")
            : $"a larger factor of its rope_scaling ({Config.RopeScaling.TypeName}; YaRN is the one that keeps most) stretches it further";
        Session.Context.Events.Report(new QuantEvent(
            "beyond-trained-length", $"the text has {length} tokens and the model is meant for {Config.UsableLength}: what it says may be poor; {remedy}", IsWarning: true));
    }
}
