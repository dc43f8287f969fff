using System.Numerics.Tensors;
using Qwen2Quant.Core.Running;
using Slot = Qwen2Quant.Model.ForwardScratch.Slot;

namespace Qwen2Quant.Model;

/// <summary>Feed-forward blocks: a gated MLP, or the mixture of Qwen2MoE (softmax over all experts, the best few, and a shared expert behind a sigmoid).</summary>
internal sealed unsafe class MixtureOfExperts(Qwen2Config config, WorkerTeam team)
{
    private const int RowsPerTask = 16;

    /// <summary>result [rowCount, hidden] (+)= down(silu(gate(x)) up(x)).</summary>
    /// <param name="down">What <paramref name="tap"/> calls the input of down.</param>
    public void FeedForward(FeedForwardWeights weights, ForwardScratch scratch, float* x, int rowCount, float* result, bool accumulate, LinearInput down, ActivationTap tap)
    {
        int width = weights.Width;
        float* gateUp = scratch.Get(Slot.GateUp, 2L * width * rowCount);
        float* activated = scratch.Get(Slot.Activated, (long)width * rowCount);
        weights.GateUp.Multiply(x, rowCount, gateUp, team);
        team.Run((rowCount + RowsPerTask - 1) / RowsPerTask, task =>
        {
            int end = Math.Min(rowCount, (task + 1) * RowsPerTask);
            for (int row = task * RowsPerTask; row < end; row++)
            {
                float* gate = gateUp + (2L * width * row);
                RowKernels.SiluMultiply(gate, gate + width, activated + ((long)width * row), width);
            }
        });
        tap.Show(down, activated, rowCount, width);
        weights.Down.Multiply(activated, rowCount, result, team, accumulate);
    }

    /// <summary>Adds the mixture of <paramref name="x"/> [rowCount, hidden] to <paramref name="result"/>; experts in ascending order, then the shared one.</summary>
    public void Mix(ExpertWeights weights, ForwardScratch scratch, float* x, int rowCount, float* result, int layer, ActivationTap tap)
    {
        int hidden = config.HiddenSize;
        float* router = scratch.Get(Slot.Router, (long)config.NumExperts * rowCount);
        float* input = scratch.Get(Slot.ExpertInput, (long)hidden * rowCount);
        float* output = scratch.Get(Slot.ExpertOutput, (long)hidden * rowCount);
        weights.Router.Multiply(x, rowCount, router, team);
        List<(int Row, float Weight)>[] chosen = Route(router, rowCount);
        for (int expert = 0; expert < chosen.Length; expert++)
        {
            List<(int Row, float Weight)> rows = chosen[expert];
            if (rows.Count == 0) continue;
            for (int i = 0; i < rows.Count; i++) Row(x, rows[i].Row).CopyTo(Row(input, i));
            tap.Show(new LinearInput(LinearInputKind.ExpertFeedForward, layer, expert), input, rows.Count, hidden);
            FeedForward(weights.Experts[expert], scratch, input, rows.Count, output, false, new LinearInput(LinearInputKind.ExpertDown, layer, expert), tap);
            for (int i = 0; i < rows.Count; i++) TensorPrimitives.MultiplyAdd(Row(output, i), rows[i].Weight, Row(result, rows[i].Row), Row(result, rows[i].Row));
        }

        float* gates = scratch.Get(Slot.SharedGate, rowCount);
        weights.SharedGate.Multiply(x, rowCount, gates, team);
        FeedForward(weights.Shared, scratch, x, rowCount, output, false, new LinearInput(LinearInputKind.SharedDown, layer), tap);
        for (int row = 0; row < rowCount; row++)
        {
            float weight = 1 / (1 + MathF.Exp(-gates[row]));
            TensorPrimitives.MultiplyAdd(Row(output, row), weight, Row(result, row), Row(result, row));
        }

        Span<float> Row(float* matrix, int row) => new(matrix + ((long)hidden * row), hidden);
    }

    /// <summary>The rows that each expert computes, with their weights. Of equal experts the lower index is chosen.</summary>
    private List<(int Row, float Weight)>[] Route(float* router, int rowCount)
    {
        List<(int, float)>[] chosen = new List<(int, float)>[config.NumExperts];
        for (int expert = 0; expert < chosen.Length; expert++) chosen[expert] = [];
        int[] best = new int[config.NumExpertsPerTok];
        for (int row = 0; row < rowCount; row++)
        {
            Span<float> p = new(router + ((long)config.NumExperts * row), config.NumExperts);
            TensorPrimitives.SoftMax(p, p);
            float total = 0;
            for (int k = 0; k < best.Length; k++)
            {
                best[k] = -1;
                for (int expert = 0; expert < p.Length; expert++)
                {
                    if (!best.AsSpan(0, k).Contains(expert) && (best[k] < 0 || p[expert] > p[best[k]])) best[k] = expert;
                }

                total += p[best[k]];
            }

            foreach (int expert in best) chosen[expert].Add((row, config.NormTopkProb ? p[expert] / total : p[expert]));
        }

        return chosen;
    }
}
