using System.CommandLine;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

internal static class SplitVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> model = ModelOptions.Model();
        Option<string> output = ModelOptions.Out();
        Option<string?> size = new("--max-shard-size") { Description = "Most bytes of tensors in one file, for example 2GB or 500MB", HelpName = "SIZE" };
        Option<long?> tensors = new("--max-tensors") { Description = "Most tensors in one part of a GGUF file", HelpName = "N" };
        Option<bool> force = ModelOptions.Force();
        Option<bool> dryRun = new("--dry-run") { Description = "Check, and print how many files there would be; write nothing" };
        Verb verb = new(
            "split",
            "Cuts a GGUF file into parts, named as llama.cpp looks for them, or a safetensors folder into shards; tensors and metadata stay as they are.",
            "split qwen2-72b-Q4_K_M.gguf --max-shard-size 20GB --out qwen2-72b-Q4_K_M-parts.gguf",
            "split ./qwen2-7b-gptq --max-shard-size 2GB --out qwen2-7b-gptq-shards");
        verb.Arguments.Add(model);
        foreach (Option option in new Option[] { output, size, tensors, force, dryRun }) verb.Options.Add(option);
        verb.SetAction(parsed => run(parsed, session =>
        {
            long? bytes = session.Parsed.GetValue(size) is { } text ? Sizes.Parse(text, size.Name) : null, count = session.Parsed.GetValue(tensors);
            if ((bytes is null) == (count is null)) throw new QuantException(ErrorKind.Usage, "split needs one limit") { Expected = "--max-shard-size or --max-tensors" };
            if (count < 1) throw new QuantException(ErrorKind.Usage, "--max-tensors is out of range") { Found = $"{count}", Expected = "1 or more" };
            using ContainerCopy copy = ContainerCopy.Open(session.Get(model), new ContainerLimit(bytes, count), session.Get(output), session.Context);
            MergeVerb.Print(session, copy.Run(session.Get(force), session.Get(dryRun)));
            return ExitCodes.Done;
        }));
        return verb;
    }
}
