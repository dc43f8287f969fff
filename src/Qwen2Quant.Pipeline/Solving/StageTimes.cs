using System.Diagnostics;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>What methods that go layer by layer spend their time on.</summary>
public enum Stage
{
    /// <summary>The model itself.</summary>
    Forward,

    /// <summary>Sums of products of inputs.</summary>
    Gram,

    /// <summary>Finding scales of channels.</summary>
    Rescale,

    /// <summary>Ordering, damping and factoring the Hessians.</summary>
    Factor,

    /// <summary>Fitting parameters and choosing codes.</summary>
    Solve,
}

/// <summary>Seconds of each stage. Stages nest: time inside an inner one does not count for the outer one. For one thread.</summary>
public sealed class StageTimes
{
    private readonly double[] _seconds = new double[Enum.GetValues<Stage>().Length];
    private readonly Stack<Stage> _open = [];
    private long _since = Stopwatch.GetTimestamp();

    public double this[Stage stage] => _seconds[(int)stage];

    /// <summary>Counts for <paramref name="stage"/> until disposed.</summary>
    public IDisposable Measure(Stage stage)
    {
        Charge();
        _open.Push(stage);
        return new Ending(this);
    }

    private void Charge()
    {
        long now = Stopwatch.GetTimestamp();
        if (_open.TryPeek(out Stage stage)) _seconds[(int)stage] += Stopwatch.GetElapsedTime(_since, now).TotalSeconds;
        _since = now;
    }

    private sealed class Ending(StageTimes times) : IDisposable
    {
        public void Dispose()
        {
            times.Charge();
            times._open.Pop();
        }
    }
}
