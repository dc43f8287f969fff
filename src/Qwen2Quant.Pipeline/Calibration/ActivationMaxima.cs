using System.Globalization;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>
/// The largest magnitude of every linear input of a forward pass, and where it was. Of equal ones the first counts, so the result does not
/// depend on the number of threads.
/// </summary>
public sealed class ActivationMaxima(int threads) : IActivationObserver
{
    private const int ValuesPerTask = 64 << 10;

    private readonly WorkerTeam _team = new(threads);
    private readonly Dictionary<LinearInput, Peak> _peaks = [];

    public unsafe void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
    {
        if (!_peaks.TryGetValue(input, out Peak? peak)) _peaks.Add(input, peak = new Peak());
        int count = rows.Length;
        float[] maxima = new float[(count + ValuesPerTask - 1) / ValuesPerTask];
        fixed (float* pinned = rows)
        {
            float* values = pinned;
            _team.Run(maxima.Length, task =>
            {
                int first = task * ValuesPerTask;
                maxima[task] = FiniteCheck.LargestMagnitude(new ReadOnlySpan<float>(values + first, Math.Min(ValuesPerTask, count - first)));
            });
        }

        int width = count / rowCount;
        float largest = maxima.Max();
        if (largest > peak.MaxAbs)
        {
            int index = Array.IndexOf(maxima, largest) * ValuesPerTask;
            // What is not finite counts as infinity; the pass itself refuses it further on.
            while (float.IsFinite(rows[index]) && MathF.Abs(rows[index]) != largest) index++;
            (peak.MaxAbs, peak.Channel, peak.Row) = (largest, index % width, peak.RowCount + (index / width));
        }

        peak.RowCount += rowCount;
    }

    /// <summary>The largest magnitude of each input.</summary>
    public IReadOnlyDictionary<LinearInput, float> Largest => _peaks.ToDictionary(pair => pair.Key, pair => pair.Value.MaxAbs);

    /// <summary>What was seen, in the order of the model; an event for each input that half precision cannot hold, or nearly not.</summary>
    /// <param name="windows">The windows that were run, all of them and in order.</param>
    public IReadOnlyList<ActivationMaximum> Report(WindowPlan windows, IEventSink events)
    {
        List<ActivationMaximum> report = [];
        foreach ((LinearInput input, Peak peak) in _peaks.OrderBy(pair => pair.Key.Layer < 0 ? int.MaxValue : pair.Key.Layer).ThenBy(pair => pair.Key.Kind).ThenBy(pair => pair.Key.Expert))
        {
            bool hasPlace = input.Expert < 0;
            ActivationMaximum maximum = new(
                Module(input.Kind),
                input.Layer < 0 ? null : input.Layer,
                input.Expert < 0 ? null : input.Expert,
                peak.MaxAbs,
                peak.Channel,
                hasPlace ? windows.WindowNumber((int)(peak.Row / windows.Context)) : null,
                hasPlace ? (int)(peak.Row % windows.Context) : null);
            report.Add(maximum);
            Warn(maximum, events);
        }

        return report;
    }

    private static void Warn(ActivationMaximum maximum, IEventSink events)
    {
        const float near = ActivationMaximum.LargestHalf / 2;
        if (maximum.MaxAbs <= near) return;
        bool overflows = maximum.MaxAbs > ActivationMaximum.LargestHalf;
        string what = overflows ? "which overflows half precision (F16)" : "within a factor 2 of what half precision (F16) holds";
        events.Report(new QuantEvent(
            overflows ? "activation-overflow" : "activation-near-overflow",
            string.Create(CultureInfo.InvariantCulture, $"{maximum.Name}: its input reaches {maximum.MaxAbs} in channel {maximum.Channel}, {what}; run the model with activations in BF16 or F32"),
            $"{maximum.Name}.weight",
            IsWarning: true));
    }

    /// <summary>The module that takes an input, within its layer; matrices with one input by their fused name.</summary>
    internal static string Module(LinearInputKind kind) => kind switch
    {
        LinearInputKind.Attention => "self_attn.qkv_proj",
        LinearInputKind.AttentionOutput => "self_attn.o_proj",
        LinearInputKind.FeedForward => "mlp.gate_up_proj",
        LinearInputKind.FeedForwardDown => "mlp.down_proj",
        LinearInputKind.SharedDown => "mlp.shared_expert.down_proj",
        LinearInputKind.ExpertFeedForward => "mlp.experts.gate_up_proj",
        LinearInputKind.ExpertDown => "mlp.experts.down_proj",
        _ => "lm_head",
    };

    private sealed class Peak
    {
        public float MaxAbs { get; set; } = -1;
        public int Channel { get; set; }
        public long Row { get; set; }
        public long RowCount { get; set; }
    }
}

/// <summary>Shows what it sees to several observers, in order.</summary>
internal sealed class ObserverList(params IActivationObserver[] observers) : IActivationObserver
{
    public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
    {
        foreach (IActivationObserver observer in observers) observer.Observe(input, rows, rowCount);
    }
}
