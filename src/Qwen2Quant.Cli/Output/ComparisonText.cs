using Qwen2Quant.Core.Errors;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Output;

/// <summary>A comparison as text: the figures, and where the two models disagree most.</summary>
internal static class ComparisonText
{
    public static void Write(TextWriter output, ComparisonResult result, bool withWorst)
    {
        output.WriteLine($"measured on {result.Tokens} tokens, {result.Chunks} windows of {result.Context}, {Format.Number(result.Seconds, "0.0")} s");
        output.WriteLine($"  perplexity of the base       {Figure(result.Base)}");
        output.WriteLine($"  perplexity of the candidate  {Figure(result.Candidate)}   ratio {Format.Number(result.PerplexityRatio, "0.00000")}");
        output.WriteLine($"  mean KL divergence           {Format.Number(result.MeanKld, "0.000000")} ± {Format.Number(result.MeanKldStandardError, "0.000000")}");
        output.WriteLine($"  KL percentiles               50 % {Small(result.Kld.P50)}, 90 % {Small(result.Kld.P90)}, 99 % {Small(result.Kld.P99)}, 99.9 % {Small(result.Kld.P999)}, max {Small(result.Kld.Max)}");
        output.WriteLine($"  same top token               {Format.Number(100 * result.TopTokenAgreement, "0.00")} % ± {Format.Number(100 * result.TopTokenAgreementStandardError, "0.00")}");
        if (!withWorst || result.WorstPositions.Count == 0) return;
        output.WriteLine("where they disagree most:");
        foreach (WorstPosition worst in result.WorstPositions)
        {
            string base1 = Top(worst.BaseTop);
            string candidate1 = Top(worst.CandidateTop);
            output.WriteLine($"  KL {Small(worst.Kld)}  window {worst.Window}, position {worst.Position}: …{TextEscape.Escape(worst.TextBefore)}[{TextEscape.Escape(worst.Expected.Text)}]   base {base1}, candidate {candidate1}");
        }
    }

    private static string Figure(PerplexityFigure figure) => $"{Format.Number(figure.Perplexity, "0.0000")} ± {Format.Number(figure.StandardError, "0.0000")}";

    private static string Small(double value) => Format.Number(value, "0.0000");

    private static string Top(IReadOnlyList<TokenProbability> tokens) =>
        tokens.Count == 0 ? "-" : $"'{TextEscape.Escape(tokens[0].Text)}' {Format.Number(100 * tokens[0].Probability, "0")} %";
}
