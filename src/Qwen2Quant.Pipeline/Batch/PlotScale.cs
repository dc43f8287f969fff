using System.Globalization;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>A mark on an axis.</summary>
internal sealed record PlotTick(double Value, string Label);

/// <summary>An axis: which values it spans, where a value lies on it, and its round ticks.</summary>
internal sealed class PlotScale
{
    private readonly double _low, _high;

    private PlotScale(double low, double high, bool isLogarithmic, IReadOnlyList<PlotTick> ticks)
    {
        (_low, _high) = (low, high);
        IsLogarithmic = isLogarithmic;
        Ticks = ticks;
    }

    public bool IsLogarithmic { get; }

    public IReadOnlyList<PlotTick> Ticks { get; }

    /// <summary>An axis with equal steps that leaves some room around the values.</summary>
    /// <param name="values">At least one; none below zero.</param>
    /// <param name="ticks">About how many there are at most.</param>
    public static PlotScale Linear(IReadOnlyCollection<double> values, int ticks)
    {
        double min = values.Min(), max = values.Max();
        double span = max - min;
        if (span <= 1e-9 * Math.Abs(max))
        {
            span = max == 0 ? 1 : Math.Abs(max) * 0.4;
            (min, max) = (min - span / 2, max + span / 2);
        }

        double low = Math.Max(0, min - 0.05 * span), high = max + 0.07 * span;
        return new PlotScale(low, high, isLogarithmic: false, EqualSteps(low, high, ticks));
    }

    /// <summary>An axis with equal ratios; values that have no logarithm lie on its lower end.</summary>
    /// <param name="values">Those above zero make the axis; there may be none.</param>
    public static PlotScale Logarithmic(IReadOnlyCollection<double> values)
    {
        double[] positive = [.. values.Where(value => value > 0)];
        double low = Math.Log10(positive.Length == 0 ? 1e-4 : positive.Min()), high = Math.Log10(positive.Length == 0 ? 1e-3 : positive.Max());
        double room = Math.Max(0.06 * (high - low), 0.06);
        if (positive.Length < values.Count) low -= room;
        (low, high) = (low - room, high + room);
        return new PlotScale(low, high, isLogarithmic: true, EqualRatios(low, high));
    }

    /// <summary>Where a value lies: 0 is the lower end, 1 the upper; values beyond lie on the ends.</summary>
    public double At(double value)
    {
        if (IsLogarithmic)
        {
            if (value <= 0) return 0;
            value = Math.Log10(value);
        }

        return Math.Clamp((value - _low) / (_high - _low), 0, 1);
    }

    private static PlotTick[] EqualSteps(double low, double high, int target)
    {
        double step = RoundStep((high - low) / target);
        int decimals = Math.Clamp(-(int)Math.Floor(Math.Log10(step) + 1e-9), 0, 15);
        string format = high is >= 1e6 or < 1e-4 ? "0.#########e0" : "F" + decimals.ToString(CultureInfo.InvariantCulture);
        List<PlotTick> ticks = [];
        for (double i = Math.Ceiling(low / step - 1e-9); i * step <= high * (1 + 1e-12); i++) ticks.Add(new PlotTick(i * step, ReportText.Number(i * step, format)));
        return [.. ticks];
    }

    /// <summary>The smallest of 1, 2 and 5 times a power of ten that is not below.</summary>
    private static double RoundStep(double step)
    {
        double power = Math.Pow(10, Math.Floor(Math.Log10(step)));
        return (step / power) switch { <= 1 + 1e-9 => 1, <= 2 + 1e-9 => 2, <= 5 + 1e-9 => 5, _ => 10 } * power;
    }

    private static PlotTick[] EqualRatios(double low, double high)
    {
        double span = high - low;
        int every = Math.Max(1, (int)Math.Ceiling(span / 7));
        int[] multiples = span < 4 ? [1, 2, 5] : [1];
        List<PlotTick> ticks = [];
        for (int power = (int)Math.Floor(low); power <= high; power++)
        {
            if (power % every != 0) continue;
            foreach (int multiple in multiples)
            {
                double at = power + Math.Log10(multiple);
                if (at >= low && at <= high) ticks.Add(new PlotTick(multiple * Math.Pow(10, power), PowerLabel(multiple, power)));
            }
        }

        return ticks.Count < 3 && span < 1 ? EqualSteps(Math.Pow(10, low), Math.Pow(10, high), 6) : [.. ticks];
    }

    private static string PowerLabel(int multiple, int power) => power switch
    {
        >= -5 and < 0 => string.Create(CultureInfo.InvariantCulture, $"0.{new string('0', -power - 1)}{multiple}"),
        >= 0 and < 6 => string.Create(CultureInfo.InvariantCulture, $"{multiple}{new string('0', power)}"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{multiple}e{power}"),
    };
}
