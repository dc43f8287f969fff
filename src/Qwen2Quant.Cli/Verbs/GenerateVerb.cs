using System.CommandLine;
using System.Diagnostics;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Chat;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;

namespace Qwen2Quant.Cli.Verbs;

internal static class GenerateVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> prompt = new("--prompt", "-p") { Description = "Text to continue, or - for standard input", HelpName = "TEXT", Required = true };
        Option<bool> chat = new("--chat") { Description = "The prompt is a user's message, in the model's chat template" };
        Option<string?> system = new("--system") { Description = "System message of --chat", HelpName = "TEXT" };
        Option<int> maxTokens = new("--max-tokens", "-n") { Description = "Tokens at most", HelpName = "N", DefaultValueFactory = _ => 128 };
        Option<double?> temperature = new("--temperature") { Description = "0 takes the most probable token; generation_config.json decides by default", HelpName = "T" };
        Option<int?> topK = new("--top-k") { Description = "Only so many of the most probable tokens", HelpName = "K" };
        Option<double?> topP = new("--top-p") { Description = "Only the most probable tokens that together have this probability", HelpName = "P" };
        Option<double?> repetitionPenalty = new("--repetition-penalty") { Description = "Divides the logits of tokens that occurred; 1 for none", HelpName = "R" };
        Option<ulong> seed = new("--seed") { Description = "Seed of the sampling", HelpName = "N", DefaultValueFactory = _ => 0 };
        Option<string?> dualChunk = ModelOptions.DualChunk();
        Verb verb = new(
            "generate",
            "Continues a text, greedily or by sampling.",
            "generate builtin:tiny --prompt \"It was a dark and\" --max-tokens 40",
            "generate Qwen/Qwen2-0.5B-Instruct --chat --prompt \"Who are you?\"");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { prompt, chat, system, maxTokens, temperature, topK, topP, repetitionPenalty, seed, dualChunk }) verb.Options.Add(option);
        verb.SetAction(parsed => run(parsed, session =>
        {
            if (session.Get(maxTokens) < 1) throw new QuantException(ErrorKind.Usage, "--max-tokens must be at least 1");
            if (session.Parsed.GetValue(system) is not null && !session.Get(chat)) throw new QuantException(ErrorKind.Usage, "--system needs --chat");
            string text = session.Get(prompt) == "-" ? Console.In.ReadToEnd() : session.Get(prompt);
            using Checkpoint checkpoint = ModelOptions.Open(session, model, dualChunk);
            if (session.Get(chat)) text = RenderChat(checkpoint, text, session.Parsed.GetValue(system));
            LoadedModel loaded = new(checkpoint, session.Context);
            int[] promptIds = loaded.Tokenizer.Encode(text, parseSpecial: session.Get(chat));
            if (loaded.Tokenizer.LeadingId is { } leading) promptIds = [leading, .. promptIds];
            if (promptIds.Length == 0) throw new QuantException(ErrorKind.Usage, "--prompt is empty");

            SamplingOptions options = SamplingOptions.From(checkpoint.Generation ?? new GenerationConfig(), session.Get(seed));
            if (session.Parsed.GetValue(temperature) is { } wantedTemperature) options = options with { Temperature = wantedTemperature };
            if (session.Parsed.GetValue(topK) is { } wantedTopK) options = options with { TopK = wantedTopK };
            if (session.Parsed.GetValue(topP) is { } wantedTopP) options = options with { TopP = wantedTopP };
            if (session.Parsed.GetValue(repetitionPenalty) is { } wantedPenalty) options = options with { RepetitionPenalty = wantedPenalty };
            CheckSampling(options);
            HashSet<int> stops = [.. loaded.Tokenizer.EndOfTextIds, .. checkpoint.Config.EosTokenIds, .. checkpoint.Generation?.EosTokenIds ?? []];
            GenerateResult result = Stream(session, loaded, promptIds, options, session.Get(maxTokens), stops);
            session.Print(result, CliJson.Default.GenerateResult, output => output.WriteLine());
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static GenerateResult Stream(Session session, LoadedModel model, int[] prompt, SamplingOptions options, int maxTokens, HashSet<int> stops)
    {
        Stopwatch watch = Stopwatch.StartNew();
        StreamingDecoder decoder = new(model.Tokenizer);
        List<int> tokens = [];
        System.Text.StringBuilder text = new();
        foreach (int token in Generator.Generate(model.Model, prompt, options, maxTokens, stops, session.Context.Cancellation))
        {
            tokens.Add(token);
            Show(decoder.Push(token));
        }

        Show(decoder.Finish());
        double seconds = watch.Elapsed.TotalSeconds;
        return new GenerateResult(text.ToString(), tokens, tokens.Count < maxTokens ? "stop_token" : "max_tokens", seconds, tokens.Count / seconds);

        void Show(string piece)
        {
            text.Append(piece);
            if (session.Json) return;
            session.Out.Write(piece);
            session.Out.Flush();
        }
    }

    private static void CheckSampling(SamplingOptions options)
    {
        string? wrong = options switch
        {
            { Temperature: < 0 or double.NaN } => "--temperature must not be negative",
            { TopK: < 0 } => "--top-k must not be negative",
            { TopP: <= 0 or > 1 or double.NaN } => "--top-p must be above 0 and at most 1",
            { RepetitionPenalty: <= 0 or double.NaN } => "--repetition-penalty must be above 0",
            _ => null,
        };
        if (wrong is not null) throw new QuantException(ErrorKind.Usage, wrong);
    }

    private static string RenderChat(Checkpoint checkpoint, string user, string? system)
    {
        string jinja = checkpoint.Tokenizer.ChatTemplate ?? throw new QuantException(ErrorKind.InvalidInput, "the model has no chat template")
        {
            Path = checkpoint.Location.Path,
            Remedy = "Leave out --chat, or take the Instruct variant of the model.",
        };
        ChatTemplate template = ChatTemplate.Recognize(jinja) ?? throw new QuantException(ErrorKind.Unsupported, "the chat template is not one that is rendered here")
        {
            Path = checkpoint.Location.Path,
            Found = ChatTemplate.Describe(jinja),
            Expected = "the ChatML template of Qwen2 or Qwen2.5",
        };
        List<ChatMessage> messages = [new(ChatMessage.User, user)];
        if (system is not null) messages.Insert(0, new ChatMessage(ChatMessage.System, system));
        return template.Render(messages, addGenerationPrompt: true);
    }
}
