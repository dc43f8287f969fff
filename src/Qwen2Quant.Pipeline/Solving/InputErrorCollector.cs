using System.Numerics.Tensors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>Sums what the matrices before did to linear inputs, as these are shown beside the original model's.</summary>
/// <param name="divisors">What the channels of an input are divided by in the model as it is rewritten; null where they are not.</param>
internal sealed class InputErrorCollector(Func<LinearInput, float[]?> divisors, WorkerTeam team, StageTimes times) : IActivationPairObserver
{
    private readonly Dictionary<LinearInput, InputError> _errors = [];

    public void Observe(LinearInput input, ReadOnlySpan<float> rows, ReadOnlySpan<float> originals, int rowCount)
    {
        using IDisposable timed = times.Measure(Stage.Gram);
        int width = rows.Length / rowCount;
        if (!_errors.TryGetValue(input, out InputError? error)) _errors.Add(input, error = new InputError(width));
        if (divisors(input) is { } scales)
        {
            float[] divided = originals.ToArray();
            for (int row = 0; row < rowCount; row++) TensorPrimitives.Divide(divided.AsSpan(row * width, width), scales, divided.AsSpan(row * width, width));
            originals = divided;
        }

        error.Add(rows, originals, team);
    }

    /// <summary>The sums of an input; null where it is shown without the original's.</summary>
    public InputError? Find(LinearInput input) => _errors.GetValueOrDefault(input);

    public void Clear()
    {
        foreach (InputError error in _errors.Values) error.Dispose();
        _errors.Clear();
    }
}
