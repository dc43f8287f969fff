using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;

namespace Qwen2Quant.Cli.Verbs;

internal static class TokenizeVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Argument<string> text = new("TEXT") { Description = "The text itself, or - for standard input" };
        Option<bool> parseSpecial = new("--parse-special") { Description = "Control tokens in the text are tokens" };
        Verb verb = new("tokenize", "Prints the token ids of a text and what each stands for.", "tokenize builtin:tiny \"Call me Ishmael.\"");
        verb.Arguments.Add(model);
        verb.Arguments.Add(text);
        verb.Options.Add(parseSpecial);
        verb.SetAction(parsed => run(parsed, session =>
        {
            using Checkpoint checkpoint = Checkpoint.Open(session.Get(model), session.Context);
            BpeTokenizer tokenizer = new(checkpoint.Tokenizer);
            string content = session.Get(text) == "-" ? Console.In.ReadToEnd() : session.Get(text);
            int[] ids = tokenizer.Encode(content, session.Get(parseSpecial));
            TokenizeResult result = new(ids.Length, [.. ids.Select(id => new TokenPiece(id, TokenDisplay.Escape(tokenizer.PieceBytes(id))))]);
            session.Print(result, CliJson.Default.TokenizeResult, output =>
            {
                foreach (TokenPiece token in result.Tokens) output.WriteLine($"{token.Id,7}  {token.Piece}");
            });
            return ExitCodes.Done;
        }));
        return verb;
    }
}
