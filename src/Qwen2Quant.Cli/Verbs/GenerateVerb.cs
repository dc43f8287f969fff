using System.CommandLine;
using Qwen2Quant.Cli.Generation;
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
    private const int DefaultMaxTokens = 128;
    private const int DefaultChatContext = 4096;

    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string?> prompt = new("--prompt", "-p") { Description = "Text to continue, or - for standard input", HelpName = "TEXT" };
        Option<bool> chat = new("--chat") { Description = "The prompt is a user's message, in the model's chat template; without --prompt a conversation, a line of standard input for each message" };
        Option<string?> system = new("--system") { Description = "System message of --chat", HelpName = "TEXT" };
        Option<bool> parseSpecial = new("--parse-special") { Description = "Control tokens spelled out in the prompt are tokens; those of the chat template always are" };
        Option<int?> maxTokens = new("--max-tokens", "-n") { Description = $"Tokens at most; 0 only reads the prompt [default: {DefaultMaxTokens}, in a conversation what the context holds]", HelpName = "N" };
        Option<int?> contextLength = new("--context", "-c") { Description = $"Tokens of prompt and answer together at most; a conversation leaves its oldest messages out when it is full [default: what is needed, in a conversation {DefaultChatContext}]", HelpName = "N" };
        Option<string?> dualChunk = ModelOptions.DualChunk();
        SamplingOptionSet sampling = new();
        Verb verb = new(
            "generate",
            "Continues a text or holds a conversation, greedily or by sampling.",
            "generate builtin:tiny --prompt \"It was a dark and\" --max-tokens 40",
            "generate Qwen/Qwen2-0.5B-Instruct --chat --prompt \"Who are you?\"",
            "generate qwen2-0.5b-Q8_0.gguf --chat --system \"Answer in one sentence.\" --temperature 0.7");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { prompt, chat, system, parseSpecial, maxTokens, contextLength, dualChunk, ModelOptions.Exact }) verb.Options.Add(option);
        sampling.AddTo(verb);
        verb.SetAction(parsed => run(parsed, session =>
        {
            bool isChat = session.Get(chat);
            int? limit = session.Parsed.GetValue(maxTokens);
            if (limit < 0) throw new QuantException(ErrorKind.Usage, "--max-tokens must not be negative");
            if (session.Parsed.GetValue(contextLength) < 1) throw new QuantException(ErrorKind.Usage, "--context must be at least 1");
            if (session.Parsed.GetValue(system) is not null && !isChat) throw new QuantException(ErrorKind.Usage, "--system needs --chat");
            string? text = session.Parsed.GetValue(prompt);
            if (text is null && !isChat) throw new QuantException(ErrorKind.Usage, "there is nothing to continue") { Remedy = "Add --prompt TEXT, or --chat for a conversation." };
            if (text == "-") text = Console.In.ReadToEnd();
            if (text?.Length == 0) throw new QuantException(ErrorKind.Usage, "--prompt is empty");

            using Checkpoint checkpoint = ModelOptions.Open(session, model, dualChunk);
            SamplingOptions options = sampling.Read(session, checkpoint.Generation ?? new GenerationConfig());
            ChatTemplate? template = isChat ? Template(checkpoint) : null;
            LoadedModel loaded = new(checkpoint, session.Context);
            HashSet<int> stops = checkpoint.StopTokens(loaded.Tokenizer);
            Conversation? conversation = template is null ? null : new(template, loaded.Tokenizer, session.Parsed.GetValue(system), session.Get(parseSpecial));
            if (text is null)
            {
                int capacity = session.Parsed.GetValue(contextLength) ?? (int)Math.Min(DefaultChatContext, checkpoint.Config.UsableLength);
                ChatResult talk = new ChatLoop(session, Writer(capacity, limit), conversation!).Run();
                session.Print(talk, CliJson.Default.ChatResult, _ => { });
                return ExitCodes.Done;
            }

            conversation?.Ask(text);
            int[] ids = conversation?.Tokens() ?? Encode(loaded.Tokenizer, text, session.Get(parseSpecial));
            int wanted = limit ?? DefaultMaxTokens;
            int context = session.Parsed.GetValue(contextLength) ?? checked(ids.Length + wanted);
            if (ids.Length > context)
            {
                throw new QuantException(ErrorKind.Usage, "the prompt does not fit in --context") { Found = $"{ids.Length} tokens", Expected = $"at most {context}" };
            }

            GenerateResult result = Writer(context, wanted).Write(ids, session.Context.Cancellation);
            session.Print(result with { Events = session.Context.Events.Events }, CliJson.Default.GenerateResult, output => output.WriteLine());
            session.Context.Cancellation.ThrowIfCancellationRequested();
            return ExitCodes.Done;

            AnswerWriter Writer(int capacity, int? most) => new(session, loaded.Tokenizer, checkpoint.Config, new Generator(loaded.Model, capacity, options), stops, most);
        }));
        return verb;
    }

    private static int[] Encode(ITokenizer tokenizer, string text, bool parseSpecial)
    {
        int[] ids = tokenizer.Encode(text, parseSpecial);
        return tokenizer.LeadingId is { } leading ? [leading, .. ids] : ids;
    }

    private static ChatTemplate Template(Checkpoint checkpoint)
    {
        string jinja = checkpoint.Tokenizer.ChatTemplate ?? throw new QuantException(ErrorKind.InvalidInput, "the model has no chat template")
        {
            Path = checkpoint.Location.Path,
            Remedy = "Leave out --chat, or take the Instruct variant of the model.",
        };
        return ChatTemplate.Recognize(jinja) ?? throw new QuantException(ErrorKind.Unsupported, "the chat template is not one that is rendered here")
        {
            Path = checkpoint.Location.Path,
            Found = ChatTemplate.Describe(jinja),
            Expected = "the ChatML template of Qwen2 or Qwen2.5",
        };
    }
}
