using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>Sums the Gram matrices of linear inputs as they are shown.</summary>
internal sealed class GramCollector(WorkerTeam team, StageTimes times) : IActivationObserver
{
    private readonly Dictionary<LinearInput, GramMatrix> _grams = [];

    public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
    {
        using IDisposable timed = times.Measure(Stage.Gram);
        if (!_grams.TryGetValue(input, out GramMatrix? gram)) _grams.Add(input, gram = new GramMatrix(rows.Length / rowCount));
        gram.Add(rows, rowCount, team);
    }

    /// <summary>Forgets what was not taken: inputs of matrices that keep their type.</summary>
    public void Clear() => _grams.Clear();

    /// <summary>The sums of an input, handed over and forgotten; null when no row of it was seen.</summary>
    public GramMatrix? Take(LinearInput input)
    {
        using IDisposable timed = times.Measure(Stage.Gram);
        if (!_grams.Remove(input, out GramMatrix? gram)) return null;
        gram.Fold(team);
        return gram;
    }
}
