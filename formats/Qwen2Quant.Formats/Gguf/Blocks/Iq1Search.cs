using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Searches rows, deltas and scales of IQ1 blocks for the least sum of weight x squared error under the stored scale. Every granule's row is the best of the codebook for
/// its step; d is the least-squares one for the codes, so it needs none of ggml's factors.
/// </summary>
internal unsafe struct Iq1Search<TLayout, T> where TLayout : struct, IIq1Layout where T : unmanaged, ILanes<T>
{
    private const int Stride = Iq1Lanes<TLayout, T>.Stride;

    /// <summary>Growth of the stored step for each unit of lost gain.</summary>
    private const float GainRestored = 15 / 16f;

    /// <summary>Scales tried between half the multiples' range and a little more than all of it.</summary>
    private const int Scales = 32;

    /// <summary>Scales of which the high effort refines the multiples.</summary>
    private const int RefinedScales = 4;

    private Iq1Lanes<TLayout, T> _lanes;
    private fixed float _fitted[Stride], _curvature[Stride], _multiples[Stride], _bestMultiples[Stride], _bestDeltas[4 * Stride];
    private fixed ushort _bestRows[4 * Stride];
    private fixed float _d[2], _bestD[2], _leastLoss[2];

    private static int Blocks => Stride / TLayout.Groups;

    /// <summary>Encodes at most as many blocks as make 16 groups.</summary>
    [SkipLocalsInit]
    public static void Encode(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Iq1Fields fields, ref byte blocks)
    {
        Unsafe.SkipInit(out Iq1Search<TLayout, T> search);
        search.Run(values, importance, effort);
        for (int n = 0; n < values.Length / 256; n++)
        {
            search.Take(n, ref fields);
            TLayout.Write(fields, ref Unsafe.Add(ref blocks, n * TLayout.BlockBytes));
        }
    }

    private void Run(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort)
    {
        _lanes.Load(values, importance);
        for (int n = 0; n < Blocks; n++) _leastLoss[n] = float.PositiveInfinity;
        _lanes.Relax(effort == Effort.Fast ? [1.1f, 1.4f, 2.2f] : [0.9f, 1.1f, 1.3f, 1.6f, 2.2f, 3f]);
        ChooseScales();
        if (effort != Effort.Fast)
        {
            _lanes.FindRowsAndDeltas();
            Keep();
            ChooseScales();
        }

        if (effort != Effort.High)
        {
            _lanes.FindRows();
            Keep();
            if (effort != Effort.Fast) return;
            ChooseScales();
            _lanes.FindRows();
            Keep();
            return;
        }

        _lanes.FindRowsAndDeltas();
        Keep();
        FitGroups();
        for (int rank = 0; rank < RefinedScales; rank++)
        {
            SetScales(rank);
            RefineMultiples();
            _lanes.FindRowsAndDeltas();
            Keep();
        }
    }

    /// <summary>Of each group's multiple and its neighbours the one whose best rows lose least.</summary>
    private void RefineMultiples()
    {
        Span<float> start = stackalloc float[Stride];
        Span<float> least = stackalloc float[Stride];
        Span<float> best = stackalloc float[Stride];
        MemoryMarshal.CreateSpan(ref _multiples[0], Stride).CopyTo(start);
        least.Fill(float.PositiveInfinity);
        for (int offset = -2; offset <= 2; offset += 2)
        {
            for (int g = 0; g < Stride; g++) _multiples[g] = Math.Clamp(start[g] + offset, 1, 15);
            SetSteps();
            _lanes.FindRowsAndDeltas();
            for (int g = 0; g < Stride; g++)
            {
                float loss = 0;
                for (int at = g; at < TLayout.GroupGranules * Stride; at += Stride) loss += _lanes.Losses[at];
                if (loss < least[g]) (least[g], best[g]) = (loss, _multiples[g]);
            }
        }

        best.CopyTo(MemoryMarshal.CreateSpan(ref _multiples[0], Stride));
        SetSteps();
    }

    private void ChooseScales()
    {
        FitGroups();
        SetScales(0);
    }

    /// <summary>The best step of each group for the codes found last.</summary>
    private void FitGroups()
    {
        for (int g = 0; g < Stride; g += T.Width)
        {
            T sumA = Block32.At<T>(ref _lanes.SumsA[0], g), sumB = Block32.At<T>(ref _lanes.SumsB[0], g);
            T.Store(T.Max(sumA, T.Broadcast(0)) / T.Max(sumB, T.Broadcast(1e-30f)), ref _fitted[g]);
            T.Store(sumB, ref _curvature[g]);
        }
    }

    /// <summary>For each block the d whose odd multiples come nearest to the groups' best steps, after <paramref name="rank"/> better ones, and those multiples.</summary>
    private void SetScales(int rank)
    {
        Span<float> losses = stackalloc float[Scales];
        Span<float> inverses = stackalloc float[Scales];
        for (int k = 0; k < Scales; k++) inverses[k] = 1 / (8.25f + (0.25f * k));
        for (int n = 0; n < Blocks; n++)
        {
            float peak = 0;
            for (int b = n * TLayout.Groups; b < (n + 1) * TLayout.Groups; b++) peak = MathF.Max(peak, _fitted[b]);
            for (int k = 0; k < Scales; k += T.Width)
            {
                T d = T.Broadcast(peak) * Block32.At<T>(ref inverses[0], k);
                T inverse = LaneMath.FiniteInverse(d);
                T loss = T.Broadcast(0);
                for (int b = n * TLayout.Groups; b < (n + 1) * TLayout.Groups; b++)
                {
                    T fitted = T.Broadcast(_fitted[b]);
                    T error = fitted - (d * NearestMultiple(fitted * inverse));
                    loss += T.Broadcast(_curvature[b]) * error * error;
                }

                T.Store(loss, ref losses[k]);
            }

            int best = 0;
            for (int taken = 0; taken <= rank; taken++)
            {
                if (taken > 0) losses[best] = float.PositiveInfinity;
                best = 0;
                for (int k = 1; k < Scales; k++) best = losses[k] < losses[best] ? k : best;
            }

            _d[n] = peak * inverses[best];
        }

        for (int g = 0; g < Stride; g++) _lanes.Steps[g] = _d[g / TLayout.Groups];
        for (int g = 0; g < Stride; g += T.Width)
        {
            T d = Block32.At<T>(ref _lanes.Steps[0], g);
            T.Store(NearestMultiple(Block32.At<T>(ref _fitted[0], g) * LaneMath.FiniteInverse(d)), ref _multiples[g]);
        }

        SetSteps();
    }

    private void SetSteps()
    {
        for (int g = 0; g < Stride; g++) _lanes.Steps[g] = _d[g / TLayout.Groups] * _multiples[g];
    }

    /// <summary>Fits d to the codes found last, as it will be stored, and keeps those of the blocks that lose less than before.</summary>
    private void Keep()
    {
        _lanes.Sum();
        for (int n = 0; n < Blocks; n++)
        {
            float sumA = 0, sumB = 0, squares = 0;
            for (int g = n * TLayout.Groups; g < (n + 1) * TLayout.Groups; g++)
            {
                squares += _lanes.Squares[g];
                sumA += _multiples[g] * _lanes.SumsA[g];
                sumB += _multiples[g] * _multiples[g] * _lanes.SumsB[g];
            }

            float stored = (float)(Half)MathF.Min(65504, sumA > 0 && sumB > 0 ? sumA / sumB * _lanes.Unit : 0);
            float d = _d[n] = stored / _lanes.Unit;
            float loss = ((d * sumB) - (2 * sumA)) * d;
            if (!(loss < _leastLoss[n])) continue;
            // With the least squares step sum w x q is only the share r of sum w x^2, about 0.83, and this common loss of gain does more harm to a model than as much
            // error at random: the step that is stored restores three quarters of it. 1 / r would restore all, and would blow up a block that is hardly explained.
            float share = squares > 0 ? MathF.Min(1, sumA * sumA / (squares * sumB)) : 1;
            (_leastLoss[n], _bestD[n]) = (loss, (float)(Half)MathF.Min(65504, stored * (1 + (GainRestored * (1 - share)))));
            for (int g = n * TLayout.Groups; g < (n + 1) * TLayout.Groups; g++)
            {
                _bestMultiples[g] = _multiples[g];
                for (int at = g; at < TLayout.GroupGranules * Stride; at += Stride) (_bestRows[at], _bestDeltas[at]) = (_lanes.Rows[at], _lanes.Deltas[at]);
            }
        }
    }

    private void Take(int block, ref Iq1Fields fields)
    {
        fields.D = _bestD[block];
        for (int b = 0; b < TLayout.Groups; b++)
        {
            int g = (block * TLayout.Groups) + b;
            fields.Multiples[b] = (int)_bestMultiples[g];
            for (int r = 0; r < TLayout.GroupGranules; r++)
            {
                fields.Rows[(b * TLayout.GroupGranules) + r] = _bestRows[(r * Stride) + g];
                fields.HasMinus[(b * TLayout.GroupGranules) + r] = _bestDeltas[(r * Stride) + g] < 0;
            }
        }
    }

    /// <summary>The nearest of 1, 3 to 15.</summary>
    private static T NearestMultiple(T ratio)
    {
        T half = LaneMath.Clamp((ratio - T.Broadcast(1)) * T.Broadcast(0.5f), 0, 7);
        T index = LaneMath.RoundToEven(half);
        return index + index + T.Broadcast(1);
    }
}
