using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

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
    private const int LaneCount = SoftmaxRows.LaneCount;

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
                >= SimdLevel.Avx512 => Vectors<Lanes512, WideLanes512>(pair),
                >= SimdLevel.Avx2 => Vectors<Lanes256, WideLanes256>(pair),
                >= SimdLevel.Vector128 => Vectors<Lanes128, WideLanes128>(pair),
                _ => Scalar(pair),
            };
        }
    }

    private static DivergenceSums Vectors<TLanes, TSums>(Pair pair)
        where TLanes : unmanaged, ILanes<TLanes>
        where TSums : unmanaged, IWideLanes<TSums, TLanes>
    {
        TLanes firstShift = TLanes.Broadcast(pair.BaseMaximum);
        TLanes secondShift = TLanes.Broadcast(pair.CandidateMaximum);
        double* lanes = stackalloc double[3 * LaneCount];
        new Span<double>(lanes, 3 * LaneCount).Clear();
        int whole = pair.Count - (pair.Count % LaneCount);
        int chunk = TLanes.Width == LaneCount ? whole : SoftmaxRows.ChunkLength;
        for (int first = 0; first < whole; first += chunk)
        {
            int end = Math.Min(first + chunk, whole);
            for (int lane = 0; lane < LaneCount; lane += TLanes.Width)
            {
                TSums baseSums = TSums.Load(in lanes[lane]);
                TSums candidateSums = TSums.Load(in lanes[LaneCount + lane]);
                TSums weightedSums = TSums.Load(in lanes[(2 * LaneCount) + lane]);
                for (int index = first + lane; index < end; index += LaneCount)
                {
                    TLanes b = TLanes.Load(in pair.Base[index]) - firstShift;
                    TLanes c = TLanes.Load(in pair.Candidate[index]) - secondShift;
                    candidateSums += TSums.Widen(Exponential.Evaluate(c));
                    TSums exponential = TSums.Widen(Exponential.Evaluate(b));
                    baseSums += exponential;
                    weightedSums = TSums.MultiplyAdd(exponential, TSums.Widen(b - c), weightedSums);
                }

                TSums.Store(baseSums, ref lanes[lane]);
                TSums.Store(candidateSums, ref lanes[LaneCount + lane]);
                TSums.Store(weightedSums, ref lanes[(2 * LaneCount) + lane]);
            }
        }

        return Tail(pair, whole, lanes);
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
