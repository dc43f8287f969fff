using System.Numerics.Tensors;
using Qwen2Quant.Core.Running;
using Slot = Qwen2Quant.Model.ForwardScratch.Slot;

namespace Qwen2Quant.Model;

/// <summary>Feed-forward blocks: a gated MLP, or the mixture of Qwen2MoE (softmax over all experts, the best few, and a shared expert behind a sigmoid).</summary>
internal sealed unsafe class MixtureOfExperts(Qwen2Config config, WorkerTeam team)
{
    private const int RowsPerTask = 16;

    /// <summary>silu(gate(x)) up(x), [rowCount, width], shown as <paramref name="down"/>.</summary>
    public float* Activate(FeedForwardWeights weights, ForwardScratch scratch, float* x, int rowCount, LinearInput down, ActivationTap tap)
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
        return activated;
    }

    /// <summary>Adds the mixture of <paramref name="x"/> [rowCount, hidden] to <paramref name="result"/>; experts in ascending order, then the shared one.</summary>
    public void Mix(ExpertWeights weights, ForwardScratch scratch, float* x, int rowCount, float* result, int layer, ActivationTap tap)
    {
        int hidden = config.HiddenSize;
        float* output = scratch.Get(Slot.ExpertOutput, (long)hidden * rowCount);
        ForEachExpert(weights, scratch, x, rowCount, (expert, input, rows) =>
        {
            tap.Show(new LinearInput(LinearInputKind.ExpertFeedForward, layer, expert), input, rows.Count, hidden);
            FeedForward(weights.Experts[expert], input, rows.Count, new LinearInput(LinearInputKind.ExpertDown, layer, expert));
            for (int i = 0; i < rows.Count; i++) TensorPrimitives.MultiplyAdd(Row(output, i), rows[i].Weight, Row(result, rows[i].Row), Row(result, rows[i].Row));
        });
        float* gates = scratch.Get(Slot.SharedGate, rowCount);
        weights.SharedGate.Multiply(x, rowCount, gates, team);
        FeedForward(weights.Shared, x, rowCount, new LinearInput(LinearInputKind.SharedDown, layer));
        for (int row = 0; row < rowCount; row++)
        {
            float weight = 1 / (1 + MathF.Exp(-gates[row]));
            TensorPrimitives.MultiplyAdd(Row(output, row), weight, Row(result, row), Row(result, row));
        }

        void FeedForward(FeedForwardWeights mlp, float* input, int count, LinearInput down) =>
            mlp.Down.Multiply(Activate(mlp, scratch, input, count, down, tap), count, output, team);
    }

    /// <summary>As <see cref="Qwen2Model.ShowExpertInputs"/>.</summary>
    public void ShowExpertInputs(ExpertWeights weights, ForwardScratch scratch, float* x, int rowCount, int layer, ActivationTap tap, bool allExperts)
    {
        if (allExperts)
        {
            for (int expert = 0; expert < config.NumExperts; expert++) tap.Show(new LinearInput(LinearInputKind.ExpertFeedForward, layer, expert), x, rowCount, config.HiddenSize);
            return;
        }

        ForEachExpert(weights, scratch, x, rowCount, (expert, input, rows) =>
            tap.Show(new LinearInput(LinearInputKind.ExpertFeedForward, layer, expert), input, rows.Count, config.HiddenSize));
    }

    /// <summary>As <see cref="Qwen2Model.ShowExpertDown"/>.</summary>
    public void ShowExpertDown(ExpertWeights weights, ForwardScratch scratch, float* x, int rowCount, int layer, ActivationTap tap, bool allExperts)
    {
        if (allExperts)
        {
            for (int expert = 0; expert < config.NumExperts; expert++) Activate(weights.Experts[expert], scratch, x, rowCount, new LinearInput(LinearInputKind.ExpertDown, layer, expert), tap);
        }
        else
        {
            ForEachExpert(weights, scratch, x, rowCount, (expert, input, rows) =>
                Activate(weights.Experts[expert], scratch, input, rows.Count, new LinearInput(LinearInputKind.ExpertDown, layer, expert), tap));
        }

        Activate(weights.Shared, scratch, x, rowCount, new LinearInput(LinearInputKind.SharedDown, layer), tap);
    }

    private delegate void ExpertAction(int expert, float* input, List<(int Row, float Weight)> rows);

    /// <summary>Gathers the rows of each expert that has any, experts in ascending order.</summary>
    private void ForEachExpert(ExpertWeights weights, ForwardScratch scratch, float* x, int rowCount, ExpertAction action)
    {
        float* router = scratch.Get(Slot.Router, (long)config.NumExperts * rowCount);
        float* input = scratch.Get(Slot.ExpertInput, (long)config.HiddenSize * rowCount);
        weights.Router.Multiply(x, rowCount, router, team);
        List<(int Row, float Weight)>[] chosen = Route(router, rowCount);
        for (int expert = 0; expert < chosen.Length; expert++)
        {
            List<(int Row, float Weight)> rows = chosen[expert];
            if (rows.Count == 0) continue;
            for (int i = 0; i < rows.Count; i++) Row(x, rows[i].Row).CopyTo(Row(input, i));
            action(expert, input, rows);
        }
    }

    private Span<float> Row(float* matrix, int row) => new(matrix + ((long)config.HiddenSize * row), config.HiddenSize);

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
