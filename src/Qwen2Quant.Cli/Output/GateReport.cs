using Qwen2Quant.Validation;

namespace Qwen2Quant.Cli.Output;

/// <summary>Says which limits a comparison broke and gives the exit code for it.</summary>
internal static class GateReport
{
    public static int Apply(Session session, QualityGate gate, ComparisonResult result)
    {
        IReadOnlyList<GateViolation> violations = gate.Evaluate(result);
        foreach (GateViolation violation in violations) session.Error.WriteLine($"error: gate failed: {violation}");
        return violations.Count == 0 ? ExitCodes.Done : ExitCodes.VerificationFailed;
    }
}
