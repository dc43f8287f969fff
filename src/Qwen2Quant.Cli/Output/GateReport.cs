using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Output;

/// <summary>Says which limits a comparison broke and gives the exit code for it.</summary>
internal static class GateReport
{
    public static int Apply(Session session, QualityGate gate, ComparisonResult? text, GenerationComparison? generation = null)
    {
        IReadOnlyList<GateViolation> violations = gate.Evaluate(text, generation);
        foreach (GateViolation violation in violations) session.Error.WriteLine($"error: gate failed: {violation}");
        return violations.Count == 0 ? ExitCodes.Done : ExitCodes.VerificationFailed;
    }
}
