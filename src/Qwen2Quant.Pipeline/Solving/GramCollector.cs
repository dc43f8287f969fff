using System.Numerics.Tensors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>Sums the Gram matrices of linear inputs as they are shown.</summary>
/// <param name="keepsLargest">Also keeps the largest magnitude of each channel.</param>
internal sealed class GramCollector(WorkerTeam team, StageTimes times, bool keepsLargest = false) : IActivationObserver
{
    private readonly Dictionary<LinearInput, GramMatrix> _grams = [];
    private readonly Dictionary<LinearInput, float[]> _largest = [];

    public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
    {
        using IDisposable timed = times.Measure(Stage.Gram);
        if (!_grams.TryGetValue(input, out GramMatrix? gram)) _grams.Add(input, gram = new GramMatrix(rows.Length / rowCount));
        gram.Add(rows, rowCount, team);
        if (!keepsLargest) return;
        if (!_largest.TryGetValue(input, out float[]? largest)) _largest.Add(input, largest = new float[gram.Width]);
        for (int row = 0; row < rowCount; row++) TensorPrimitives.MaxMagnitude(largest, rows.Slice(row * largest.Length, largest.Length), largest);
        TensorPrimitives.Abs(largest, largest);
    }

    /// <summary>The sums of an input, which stay here; null when no row of it was seen.</summary>
    public GramMatrix? Find(LinearInput input)
    {
        if (!_grams.TryGetValue(input, out GramMatrix? gram)) return null;
        gram.Fold(team);
        return gram;
    }

    /// <summary>The largest magnitude of each channel of an input; null when no row of it was seen.</summary>
    public float[]? Largest(LinearInput input) => _largest.GetValueOrDefault(input);

    /// <summary>Forgets what was not taken: inputs of matrices that keep their type.</summary>
    public void Clear() => _grams.Clear();

    /// <summary>The sums of an input, handed over and forgotten; null when no row of it was seen.</summary>
    public GramMatrix? Take(LinearInput input)
    {
        using IDisposable timed = times.Measure(Stage.Gram);
        GramMatrix? gram = Find(input);
        _grams.Remove(input);
        return gram;
    }
}
