using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>Two rows of logits over the same vocabulary, in one pass.</summary>
/// <param name="BaseSum">Sum of e^b, where b is a base logit less the base maximum.</param>
/// <param name="CandidateSum">Sum of e^c, where c is a candidate logit less the candidate maximum.</param>
/// <param name="Weighted">Sum of e^b (b - c).</param>
internal readonly record struct DivergenceSums(double BaseSum, double CandidateSum, double Weighted)
{
    /// <summary>
    /// The Kullback-Leibler divergence of the candidate from the base, in nats:
    /// with p = e^b / BaseSum and q = e^c / CandidateSum, the sum of p (ln p - ln q). Never negative: rounding below zero is cut off.
    /// </summary>
    public double Divergence => Math.Max(0, (Weighted / BaseSum) + Math.Log(CandidateSum) - Math.Log(BaseSum));
}

/// <summary>The sums of a divergence, with the same bits at every vector width (see <see cref="SoftmaxRows"/>).</summary>
internal static unsafe class DivergenceRows
{
    private const int LaneCount = 16;

    public static DivergenceSums Sum(ReadOnlySpan<float> baseLogits, float baseMaximum, ReadOnlySpan<float> candidateLogits, float candidateMaximum) =>
        Sum(baseLogits, baseMaximum, candidateLogits, candidateMaximum, Simd.Level);

    internal static DivergenceSums Sum(
        ReadOnlySpan<float> baseLogits, float baseMaximum, ReadOnlySpan<float> candidateLogits, float candidateMaximum, SimdLevel level)
    {
        int count = Math.Min(baseLogits.Length, candidateLogits.Length);
        fixed (float* first = baseLogits)
        fixed (float* second = candidateLogits)
        {
            Pair pair = new(first, baseMaximum, second, candidateMaximum, count);
            return level switch
            {
                >= SimdLevel.Avx512 => Vectors<Lanes512, Vector512<double>>(pair),
                >= SimdLevel.Avx2 => Vectors<Lanes256, Lanes256.Sums>(pair),
                >= SimdLevel.Vector128 => Vectors<Lanes128, Lanes128.Sums>(pair),
                _ => Scalar(pair),
            };
        }
    }

    private static DivergenceSums Vectors<TLanes, TSums>(Pair pair)
        where TLanes : struct, ILanes<TLanes, TSums>
        where TSums : struct
    {
        float* first = pair.Base;
        float* second = pair.Candidate;
        TLanes firstShift = TLanes.Broadcast(pair.BaseMaximum);
        TLanes secondShift = TLanes.Broadcast(pair.CandidateMaximum);
        TSums baseLow = default, baseHigh = default, candidateLow = default, candidateHigh = default, weightedLow = default, weightedHigh = default;
        int index = 0;
        for (; index <= pair.Count - LaneCount; index += LaneCount)
        {
            TLanes b = TLanes.Subtract(TLanes.Load(first + index), firstShift);
            TLanes c = TLanes.Subtract(TLanes.Load(second + index), secondShift);
            TLanes exponential = Exponential.Evaluate<TLanes, TSums>(c);
            candidateLow = TLanes.AddLow(candidateLow, exponential);
            candidateHigh = TLanes.AddHigh(candidateHigh, exponential);
            exponential = Exponential.Evaluate<TLanes, TSums>(b);
            TLanes difference = TLanes.Subtract(b, c);
            baseLow = TLanes.AddLow(baseLow, exponential);
            baseHigh = TLanes.AddHigh(baseHigh, exponential);
            weightedLow = TLanes.AddProductLow(weightedLow, exponential, difference);
            weightedHigh = TLanes.AddProductHigh(weightedHigh, exponential, difference);
        }

        double* lanes = stackalloc double[3 * LaneCount];
        TLanes.Store(baseLow, lanes);
        TLanes.Store(baseHigh, lanes + (LaneCount / 2));
        TLanes.Store(candidateLow, lanes + LaneCount);
        TLanes.Store(candidateHigh, lanes + (3 * LaneCount / 2));
        TLanes.Store(weightedLow, lanes + (2 * LaneCount));
        TLanes.Store(weightedHigh, lanes + (5 * LaneCount / 2));
        return Tail(pair, index, lanes);
    }

    private static DivergenceSums Scalar(Pair pair)
    {
        double* lanes = stackalloc double[3 * LaneCount];
        new Span<double>(lanes, 3 * LaneCount).Clear();
        return Tail(pair, 0, lanes);
    }

    private static DivergenceSums Tail(Pair pair, int index, double* lanes)
    {
        for (; index < pair.Count; index++)
        {
            int lane = index % LaneCount;
            float b = pair.Base[index] - pair.BaseMaximum;
            float c = pair.Candidate[index] - pair.CandidateMaximum;
            double exponential = Exponential.Evaluate(b);
            lanes[lane] += exponential;
            lanes[LaneCount + lane] += Exponential.Evaluate(c);
            lanes[(2 * LaneCount) + lane] = Math.FusedMultiplyAdd(exponential, b - c, lanes[(2 * LaneCount) + lane]);
        }

        return new DivergenceSums(SoftmaxRows.Total(lanes), SoftmaxRows.Total(lanes + LaneCount), SoftmaxRows.Total(lanes + (2 * LaneCount)));
    }

    private readonly struct Pair(float* baseLogits, float baseMaximum, float* candidateLogits, float candidateMaximum, int count)
    {
        public readonly float* Base = baseLogits;
        public readonly float* Candidate = candidateLogits;
        public readonly float BaseMaximum = baseMaximum;
        public readonly float CandidateMaximum = candidateMaximum;
        public readonly int Count = count;
    }
}
