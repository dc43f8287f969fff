using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

internal static class VerifyVerb
{
    public static Command Create(VerbRunner run)
    {
        Argument<string> path = ModelOptions.Model("PATH");
        Verb verb = new("verify", "Opens a model by all rules and checks that every value is finite.", "verify tiny-Q4_0.gguf");
        verb.Arguments.Add(path);
        verb.SetAction(parsed => run(parsed, session =>
        {
            using Checkpoint checkpoint = Checkpoint.Open(session.Get(path), session.Context);
            double seconds = Verification.Run(checkpoint, session.Context);
            VerifyResult result = new(
                session.Get(path),
                checkpoint.ContainerName,
                checkpoint.Raw.Tensors.Count,
                checkpoint.Raw.Tensors.Sum(entry => entry.Shape.ValueCount),
                checkpoint.Raw.Tensors.Sum(entry => entry.ByteLength),
                seconds);
            session.Print(result, CliJson.Default.VerifyResult, output => output.WriteLine(
                $"{TextEscape.Escape(result.Path)}: {result.Container}, {result.Tensors} tensors, {result.Parameters} parameters, {Format.Bytes(result.Bytes)}: every rule holds, every value is finite ({Format.Number(result.Seconds, "0.0")} s)"));
            return ExitCodes.Done;
        }));
        return verb;
    }
}
