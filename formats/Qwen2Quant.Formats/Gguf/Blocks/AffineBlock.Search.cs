using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct AffineBlock<TFormat>
{
    private static int ParameterCount => 2 + (2 * SubBlocks);

    /// <summary>
    /// Looks for the parameters whose nearest codes lose least: lines for the sub-blocks by themselves, units d and dmin that reach the largest of them, integer
    /// scales and minima under the stored units, the best units for their codes, and again.
    /// </summary>
    private static void EncodeSearched<T>(ReadOnlySpan<float> values, bool hasImportance, Span<float> lanes, Span<float> weights, Effort effort, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        if (!hasImportance) weights.Fill(1);
        Span<float> parameters = stackalloc float[BatchBlocks * ParameterCount];
        Batch batch = new()
        {
            Lanes = lanes,
            Weights = weights,
            Others = stackalloc float[hasImportance ? weights.Length : 0],
            State = stackalloc float[Batch.Rows * Blocks.Search.Stride],
            Parameters = parameters,
            BestErrors = stackalloc float[BatchBlocks],
        };
        batch.BestErrors.Fill(float.PositiveInfinity);
        Plan plan = Plan.Of(effort, hasImportance);
        for (int side = 0; side < plan.Sides; side++)
        {
            // The mirrored block has d and dmin below zero.
            if (side == 1) Negate<T>(lanes);
            batch.Start<T>(plan.Start);
            batch.PartPivots<T>();
            for (int n = 0; n < plan.UnitTries; n++)
            {
                batch.ChooseUnits(1 + (0.01f * (n - (plan.UnitTries / 2))));
                batch.RoundStart<T>();
                Refine<T>(batch, plan, side == 0 ? 1 : -1, hasPivotAlone: false);
            }

            if (!batch.HasPivots()) continue;
            // No pair of integers may bring the pivot near its value under such units: these are fitted to it first.
            batch.ChooseUnits(1);
            batch.RoundStart<T>();
            batch.Search<T>(default, isMeasured: true);
            batch.RefitUnits();
            Refine<T>(batch, plan, side == 0 ? 1 : -1, hasPivotAlone: true);
        }

        batch.RestoreGains<T>(plan.Sides == 1 ? 1 : -1);
        Store<T>(values, parameters, ref blocks);
    }

    private static void Refine<T>(Batch batch, in Plan plan, int sign, bool hasPivotAlone) where T : unmanaged, ILanes<T>
    {
        for (int refit = 0; refit <= plan.Refits; refit++)
        {
            if (refit != 0) batch.RefitUnits();
            batch.Search<T>(refit == 0 ? plan.First : plan.Later, refit < plan.Refits);
            batch.KeepBest(sign, hasPivotAlone);
        }
    }

    private static void Store<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> parameters, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<byte> codes = stackalloc byte[256];
        for (int b = 0; b < values.Length / 256; b++)
        {
            ReadOnlySpan<float> own = parameters.Slice(b * ParameterCount, ParameterCount);
            for (int k = 0; k < SubBlocks; k++)
            {
                ref float from = ref Unsafe.Add(ref MemoryMarshal.GetReference(values), (b * 256) + (k * TFormat.SubLength));
                StoreCodes<T>(in from, own[0] * own[2 + k], own[1] * own[2 + SubBlocks + k], ref codes[k * TFormat.SubLength]);
            }

            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            PackParameters(own, MemoryMarshal.CreateSpan(ref block, BlockBytes));
            TFormat.PackCodes<T>(in codes[0], ref block);
        }
    }

    private static void Negate<T>(Span<float> lanes) where T : unmanaged, ILanes<T>
    {
        for (int i = 0; i < lanes.Length; i += T.Width) T.Store(LaneMath.Negate(Block32.At<T>(ref lanes[0], i)), ref lanes[i]);
    }

    /// <summary>How much is tried.</summary>
    /// <param name="First">Tried around the rounded lines.</param>
    /// <param name="Later">Tried after each of <paramref name="Refits"/> refits of the units.</param>
    /// <param name="Sides">2 to try the block upside down too.</param>
    /// <param name="UnitTries">Pairs of units, one percent apart.</param>
    private readonly record struct Plan(AffineStart Start, AffineWindow First, AffineWindow Later, int Refits, int UnitTries, int Sides)
    {
        public static Plan Of(Effort effort, bool hasImportance) => effort switch
        {
            // Where few columns outweigh the others the units must fit these.
            Effort.Fast when hasImportance => new(new(8, 1, 1), new(2, 1), new(1, 1), 1, 1, 1),
            Effort.Fast => new(new(8, 1, 1), new(2, 1), default, 0, 1, 1),
            Effort.Normal => new(new(8, 3, 1), new(4, 2), new(1, 1), 1, 1, 1),
            _ => new(new(32, 3, 2), new(4, 3), new(2, 2), 2, 3, 2),
        };
    }

    /// <summary>A batch's sub-blocks as lanes, and what is known of them: rows of one float a lane.</summary>
    private ref struct Batch
    {
        public const int Rows = 20;

        /// <summary>Others are the weights without the greatest of each lane, the pivot's; empty where all weights are equal.</summary>
        public Span<float> Lanes, Weights, Others, State, Parameters, BestErrors;

        private readonly Span<float> Steps => Row(0);
        private readonly Span<float> Offsets => Row(1);
        private readonly Span<float> WeightSums => Row(2);
        private readonly Span<float> ValueSums => Row(3);
        private readonly Span<float> Means => Row(4);
        private readonly Span<float> ScaleUnits => Row(5);
        private readonly Span<float> MinimumUnits => Row(6);
        private readonly Span<float> Scales => Row(7);
        private readonly Span<float> Minima => Row(8);
        private readonly Span<float> Errors => Row(9);
        private readonly Span<float> CodeSums => Row(10);
        private readonly Span<float> CodeSquares => Row(11);
        private readonly Span<float> CodeValues => Row(12);
        private readonly Span<float> Squares => Row(13);
        private readonly Span<float> DecodedValues => Row(14);
        private readonly Span<float> Pivots => Row(15);
        private readonly Span<float> PivotWeights => Row(16);
        private readonly Span<float> PivotCodes => Row(17);
        private readonly Span<float> OtherWeightSums => Row(18);
        private readonly Span<float> OtherValueSums => Row(19);

        public readonly void Start<T>(AffineStart start) where T : unmanaged, ILanes<T>
        {
            for (int g = 0; g < Blocks.Search.Stride; g += T.Width)
            {
                AffineSearch.Totals<T> totals = AffineSearch.Sum<T>(in Lanes[g], in Weights[g], TFormat.SubLength, isFree: false);
                (T step, T offset) = AffineSearch.Start(in Lanes[g], in Weights[g], TFormat.SubLength, TFormat.CodeLimit, false, in totals, start);
                T.Store(step, ref Steps[g]);
                T.Store(offset, ref Offsets[g]);
                T.Store(totals.Weight, ref WeightSums[g]);
                T sum = T.MultiplyAdd(totals.Weight, totals.Pivot, totals.Beside);
                T.Store(sum, ref ValueSums[g]);
                T.Store(sum * LaneMath.FiniteInverse(totals.Weight), ref Means[g]);
            }
        }

        /// <summary>Parts each lane's pivot from the others, so that the sums of these are exact however much it outweighs them.</summary>
        public readonly void PartPivots<T>() where T : unmanaged, ILanes<T>
        {
            if (Others.IsEmpty)
            {
                PivotWeights.Clear();
                WeightSums.CopyTo(OtherWeightSums);
                ValueSums.CopyTo(OtherValueSums);
                return;
            }

            for (int g = 0; g < Blocks.Search.Stride; g += T.Width)
            {
                T pivot = T.Broadcast(0), greatest = pivot;
                for (int i = g; i < Weights.Length; i += Blocks.Search.Stride)
                {
                    T weight = At<T>(Weights, i);
                    T isGreater = T.Greater(weight, greatest);
                    greatest = T.Select(isGreater, weight, greatest);
                    pivot = T.Select(isGreater, At<T>(Lanes, i), pivot);
                }

                T parted = T.Broadcast(0), sum = parted, sumX = parted;
                for (int i = g; i < Weights.Length; i += Blocks.Search.Stride)
                {
                    (T weight, T value) = (At<T>(Weights, i), At<T>(Lanes, i));
                    // As great a weight on the same value is part of it.
                    T isPivot = T.Equal(weight, greatest) & T.Equal(value, pivot);
                    T other = T.Select(isPivot, T.Broadcast(0), weight);
                    parted += weight - other;
                    sum += other;
                    sumX = T.MultiplyAdd(other, value, sumX);
                    T.Store(other, ref Others[i]);
                }

                T.Store(pivot, ref Pivots[g]);
                T.Store(parted, ref PivotWeights[g]);
                T.Store(sum, ref OtherWeightSums[g]);
                T.Store(sumX, ref OtherValueSums[g]);
            }
        }

        public readonly bool HasPivots()
        {
            for (int b = 0; b < BatchBlocks; b++)
            {
                if (HasPivot(b)) return true;
            }

            return false;
        }

        /// <summary>True where one weight is more than all others of the block together.</summary>
        private readonly bool HasPivot(int block)
        {
            float greatest = 0;
            foreach (float weight in PivotWeights.Slice(block * SubBlocks, SubBlocks)) greatest = MathF.Max(weight, greatest);
            return 2 * greatest > SumOf(WeightSums, block);
        }

        /// <summary>Units under which the largest step and offset of a block are <paramref name="factor"/> times less than the limit of integers.</summary>
        public readonly void ChooseUnits(float factor)
        {
            for (int first = 0; first < Blocks.Search.Stride; first += SubBlocks)
            {
                float step = 0, offset = 0;
                for (int k = first; k < first + SubBlocks; k++) (step, offset) = (MathF.Max(step, Steps[k]), MathF.Max(offset, Offsets[k]));
                SetUnits(first, step * factor / TFormat.ScaleLimit, offset * factor / TFormat.ScaleLimit);
            }
        }

        public readonly void RoundStart<T>() where T : unmanaged, ILanes<T>
        {
            for (int g = 0; g < Blocks.Search.Stride; g += T.Width)
            {
                T.Store(AffineSearch.Round(At<T>(Steps, g) * LaneMath.FiniteInverse(At<T>(ScaleUnits, g)), TFormat.ScaleLimit), ref Scales[g]);
                T.Store(AffineSearch.Round(At<T>(Offsets, g) * LaneMath.FiniteInverse(At<T>(MinimumUnits, g)), TFormat.ScaleLimit), ref Minima[g]);
            }
        }

        /// <param name="isMeasured">True when the units are refitted afterwards.</param>
        public readonly void Search<T>(AffineWindow window, bool isMeasured) where T : unmanaged, ILanes<T>
        {
            for (int g = 0; g < Blocks.Search.Stride; g += T.Width)
            {
                (T scaleUnit, T minimumUnit) = (At<T>(ScaleUnits, g), At<T>(MinimumUnits, g));
                (T scale, T minimum) = (At<T>(Scales, g), At<T>(Minima, g));
                AffineSearch.Moments<T> moments = Measure(g, scaleUnit * scale, minimumUnit * minimum, out T error);
                T meanCode = moments.Code * LaneMath.FiniteInverse(At<T>(WeightSums, g));
                AffineSearch.Lattice(
                    in Lanes[g], in Weights[g], TFormat.SubLength, TFormat.CodeLimit, TFormat.ScaleLimit, scaleUnit, minimumUnit, meanCode, At<T>(Means, g), window,
                    ref scale, ref minimum, ref error);
                T.Store(scale, ref Scales[g]);
                T.Store(minimum, ref Minima[g]);
                T.Store(error, ref Errors[g]);
                if (!isMeasured) continue;
                (T step, T offset) = (scaleUnit * scale, minimumUnit * minimum);
                moments = AffineSearch.Measure(in Lanes[g], in (Others.IsEmpty ? Weights : Others)[g], TFormat.SubLength, TFormat.CodeLimit, step, offset, out _);
                T.Store(AffineSearch.Round((At<T>(Pivots, g) + offset) * LaneMath.FiniteInverse(step), TFormat.CodeLimit), ref PivotCodes[g]);
                T.Store(moments.Code, ref CodeSums[g]);
                T.Store(moments.Code2, ref CodeSquares[g]);
                T.Store(moments.CodeValue, ref CodeValues[g]);
            }
        }

        /// <summary>Keeps the parameters of blocks that lose less than before.</summary>
        /// <param name="sign">-1 when the lanes are the block's negatives.</param>
        /// <param name="hasPivotAlone">True to leave blocks without a pivot as they are.</param>
        public readonly void KeepBest(int sign, bool hasPivotAlone)
        {
            for (int b = 0; b < BatchBlocks; b++)
            {
                if (hasPivotAlone && !HasPivot(b)) continue;
                int first = b * SubBlocks;
                float error = SumOf(Errors, b);
                if (error >= BestErrors[b]) continue;
                BestErrors[b] = error;
                Span<float> own = Parameters.Slice(b * ParameterCount, ParameterCount);
                (own[0], own[1]) = (sign * ScaleUnits[first], sign * MinimumUnits[first]);
                Scales.Slice(first, SubBlocks).CopyTo(own[2..]);
                Minima.Slice(first, SubBlocks).CopyTo(own[(2 + SubBlocks)..]);
            }
        }

        /// <summary>The units that lose least with the codes, integer scales and integer minima as they are, over all sub-blocks.</summary>
        public readonly void RefitUnits()
        {
            for (int first = 0; first < Blocks.Search.Stride; first += SubBlocks)
            {
                double scale2 = 0, cross = 0, minimum2 = 0, scaleValue = 0, minimumValue = 0;
                for (int k = first; k < first + SubBlocks; k++)
                {
                    (double scale, double minimum) = (Scales[k], Minima[k]);
                    (double weight, double code, double value) = (PivotWeights[k], PivotCodes[k], Pivots[k]);
                    scale2 += scale * scale * (CodeSquares[k] + (weight * code * code));
                    cross += scale * minimum * (CodeSums[k] + (weight * code));
                    minimum2 += minimum * minimum * (OtherWeightSums[k] + weight);
                    scaleValue += scale * (CodeValues[k] + (weight * code * value));
                    minimumValue += minimum * (OtherValueSums[k] + (weight * value));
                }

                double determinant = (scale2 * minimum2) - (cross * cross);
                if (determinant > 1e-9 * scale2 * minimum2)
                {
                    SetUnits(first, ((scaleValue * minimum2) - (cross * minimumValue)) / determinant, ((cross * scaleValue) - (scale2 * minimumValue)) / determinant);
                }
                else if (scale2 > 0)
                {
                    SetUnits(first, scaleValue / scale2, MinimumUnits[first]);
                }
            }
        }

        /// <summary>
        /// Enlarges d and dmin by what they lose in <see cref="Gain"/>, unless that costs more than twice the share of the error that it must: where one column outweighs
        /// all others, its value is met so closely that the rounding of the halves counts.
        /// </summary>
        /// <param name="sign">-1 when the lanes are the block's negatives.</param>
        public readonly void RestoreGains<T>(int sign) where T : unmanaged, ILanes<T>
        {
            LoadKept(sign);
            for (int g = 0; g < Blocks.Search.Stride; g += T.Width)
            {
                (T step, T offset) = (At<T>(Steps, g), At<T>(Offsets, g));
                AffineSearch.Moments<T> moments = Measure(g, step, offset, out _);
                T.Store((step * moments.CodeValue) - (offset * At<T>(ValueSums, g)), ref DecodedValues[g]);
                T.Store(AffineSearch.Squares<T>(in Lanes[g], in Weights[g], TFormat.SubLength), ref Squares[g]);
            }

            Span<(float D, float Minimum, float Most)> kept = stackalloc (float, float, float)[BatchBlocks];
            for (int b = 0; b < BatchBlocks; b++)
            {
                (float square, float decoded) = (SumOf(Squares, b), SumOf(DecodedValues, b));
                Span<float> own = Parameters.Slice(b * ParameterCount, 2);
                kept[b] = (own[0], own[1], BestErrors[b] * (1 + (2 * MathF.Max(0, (square - decoded) / square))));
                if (!(decoded > 0)) continue;
                foreach (ref float unit in own) unit = MathF.CopySign(ToHalf(MathF.Abs(unit) * Gain.Factor(square, decoded)), unit);
            }

            LoadKept(sign);
            for (int g = 0; g < Blocks.Search.Stride; g += T.Width)
            {
                Measure(g, At<T>(Steps, g), At<T>(Offsets, g), out T error);
                T.Store(error, ref Errors[g]);
            }

            for (int b = 0; b < BatchBlocks; b++)
            {
                if (SumOf(Errors, b) > kept[b].Most) (Parameters[b * ParameterCount], Parameters[(b * ParameterCount) + 1]) = (kept[b].D, kept[b].Minimum);
            }
        }

        /// <summary>Steps and offsets of the parameters that are kept.</summary>
        private readonly void LoadKept(int sign)
        {
            for (int lane = 0; lane < Blocks.Search.Stride; lane++)
            {
                ReadOnlySpan<float> own = Parameters.Slice(lane / SubBlocks * ParameterCount, ParameterCount);
                Steps[lane] = sign * own[0] * own[2 + (lane % SubBlocks)];
                Offsets[lane] = sign * own[1] * own[2 + SubBlocks + (lane % SubBlocks)];
            }
        }

        private static float SumOf(ReadOnlySpan<float> lanes, int block)
        {
            float sum = 0;
            foreach (float lane in lanes.Slice(block * SubBlocks, SubBlocks)) sum += lane;
            return sum;
        }

        private readonly AffineSearch.Moments<T> Measure<T>(int lane, T step, T offset, out T error) where T : unmanaged, ILanes<T> =>
            AffineSearch.Measure(in Lanes[lane], in Weights[lane], TFormat.SubLength, TFormat.CodeLimit, step, offset, out error);

        private readonly void SetUnits(int firstLane, double scale, double minimum)
        {
            ScaleUnits.Slice(firstLane, SubBlocks).Fill(ToHalf(scale));
            MinimumUnits.Slice(firstLane, SubBlocks).Fill(ToHalf(minimum));
        }

        private readonly Span<float> Row(int index) => State.Slice(index * Blocks.Search.Stride, Blocks.Search.Stride);

        private static T At<T>(ReadOnlySpan<float> row, int lane) where T : unmanaged, ILanes<T> => Block32.At<T>(in row[0], lane);

        private static float ToHalf(double value) => value > 0 ? (float)(Half)Math.Min(value, 65504) : 0;
    }
}
