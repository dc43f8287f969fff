using Qwen2Quant.Core.Errors;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Output;

/// <summary>Generated texts of two models as text: how long they agree, and where they part.</summary>
internal static class GenerationText
{
    public static void Write(TextWriter output, GenerationComparison result)
    {
        output.WriteLine($"continued {result.Prompts.Count} prompts by at most {result.Tokens} tokens, {Format.Number(result.Seconds, "0.0")} s");
        output.WriteLine($"  tokens before they part      mean {Format.Number(result.MeanAgreedTokens, "0.0")}, median {Format.Number(result.MedianAgreedTokens, "0.0")}");
        output.WriteLine($"  the same to the end          {Format.Number(100 * result.IdenticalShare, "0.00")} %");
        foreach (PromptComparison prompt in result.Prompts)
        {
            string shown = $"'{TextEscape.Escape(prompt.Prompt)}'";
            if (prompt.Identical)
            {
                output.WriteLine($"{shown}: the same {prompt.BaseTokens} tokens");
                output.WriteLine($"  both       {TextEscape.Escape(prompt.BaseText)}");
                continue;
            }

            output.WriteLine($"{shown}: they part after {prompt.AgreedTokens} tokens");
            output.WriteLine($"  base       {TextEscape.Escape(prompt.BaseText)}");
            output.WriteLine($"  candidate  {TextEscape.Escape(prompt.CandidateText)}");
        }
    }
}
