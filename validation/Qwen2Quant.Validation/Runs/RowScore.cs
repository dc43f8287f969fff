using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Validation.Numerics;

namespace Qwen2Quant.Validation;

/// <summary>What two models make of one position.</summary>
/// <param name="BaseLoss">Negative log-likelihood of the expected token, in nats; NaN where the logits are not finite.</param>
/// <param name="CandidateLoss">The same of the candidate.</param>
/// <param name="Divergence">Kullback-Leibler divergence of the candidate from the base, in nats.</param>
/// <param name="SameTop">Whether the first of the largest logits is the same token.</param>
/// <param name="BaseNormalizer">Logarithm of the sum of the exponentials of the base's row.</param>
/// <param name="CandidateNormalizer">The same of the candidate.</param>
internal readonly record struct RowScore(double BaseLoss, double CandidateLoss, double Divergence, bool SameTop, double BaseNormalizer, double CandidateNormalizer)
{
    public static RowScore Compute(ReadOnlySpan<float> baseLogits, ReadOnlySpan<float> candidateLogits, int expected, SimdLevel level)
    {
        float baseMaximum = SoftmaxRows.Maximum(baseLogits, level);
        float candidateMaximum = SoftmaxRows.Maximum(candidateLogits, level);
        if (float.IsNaN(baseMaximum) || float.IsNaN(candidateMaximum))
        {
            return new RowScore(float.IsNaN(baseMaximum) ? double.NaN : 0, float.IsNaN(candidateMaximum) ? double.NaN : 0, 0, false, 0, 0);
        }

        DivergenceSums sums = DivergenceRows.Sum(baseLogits, baseMaximum, candidateLogits, candidateMaximum, level);
        double baseLog = Math.Log(sums.BaseSum), candidateLog = Math.Log(sums.CandidateSum);
        return new RowScore(
            baseLog - (baseLogits[expected] - baseMaximum),
            candidateLog - (candidateLogits[expected] - candidateMaximum),
            sums.Divergence,
            SoftmaxRows.IndexOf(baseLogits, baseMaximum) == SoftmaxRows.IndexOf(candidateLogits, candidateMaximum),
            baseLog + baseMaximum,
            candidateLog + candidateMaximum);
    }
}
