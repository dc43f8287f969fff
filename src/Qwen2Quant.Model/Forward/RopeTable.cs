using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model;

/// <summary>
/// Cosines and sines of the rotary positions (Su et al., "RoFormer"), with linear or YaRN scaling (Peng et al., sections 3.2 to 3.4). Angles are computed in double.
/// </summary>
internal sealed class RopeTable
{
    private readonly Lock _lock = new();
    private readonly double[] _frequencies;
    private readonly double _attentionFactor;
    private readonly int? _longest;
    private volatile Rows _rows = new(0, [], []);

    public RopeTable(Qwen2Config config)
    {
        int half = config.HeadDim / 2;
        _frequencies = new double[half];
        for (int i = 0; i < half; i++) _frequencies[i] = Math.Pow(config.RopeTheta, -2.0 * i / config.HeadDim);
        _attentionFactor = 1;
        if (config.RopeScaling is not { } scaling) return;
        int original = scaling.OriginalMaxPositionEmbeddings ?? config.MaxPositionEmbeddings;
        switch (scaling.Type)
        {
            case RopeScalingType.Linear:
                for (int i = 0; i < half; i++) _frequencies[i] /= scaling.Factor;
                break;
            case RopeScalingType.Dynamic:
                _longest = original;
                break;
            case RopeScalingType.Yarn:
                ScaleYarn(_frequencies, scaling, original, config.HeadDim, config.RopeTheta);
                _attentionFactor = scaling.AttentionFactor ?? ((0.1 * Math.Log(scaling.Factor)) + 1);
                break;
        }
    }

    /// <summary>Angles per position, in radians.</summary>
    public ReadOnlySpan<double> Frequencies => _frequencies;

    /// <summary>Rows for positions 0 to <paramref name="positionCount"/> - 1 at least, half a head's width each.</summary>
    /// <exception cref="QuantException">Dynamic scaling beyond the trained length, where the table would depend on the length of the text.</exception>
    public Rows For(int positionCount)
    {
        if (positionCount > _longest)
        {
            throw new QuantException(ErrorKind.Unsupported, "dynamic rope scaling is evaluated up to the trained length only")
            {
                Rule = ModelRules.RopeScaling, Found = $"{positionCount} positions", Expected = $"at most {_longest}",
            };
        }

        Rows rows = _rows;
        if (rows.PositionCount >= positionCount) return rows;
        lock (_lock)
        {
            if (_rows.PositionCount < positionCount) _rows = Extend(_rows, Math.Max(positionCount, Math.Min(2 * _rows.PositionCount, _longest ?? int.MaxValue)));
            return _rows;
        }
    }

    private Rows Extend(Rows old, int positionCount)
    {
        int half = _frequencies.Length;
        float[] cosines = new float[checked(positionCount * half)];
        float[] sines = new float[cosines.Length];
        old.Cosines.CopyTo(cosines, 0);
        old.Sines.CopyTo(sines, 0);
        for (int position = old.PositionCount; position < positionCount; position++)
        {
            for (int i = 0; i < half; i++)
            {
                (double sine, double cosine) = Math.SinCos(position * _frequencies[i]);
                cosines[(position * half) + i] = (float)(cosine * _attentionFactor);
                sines[(position * half) + i] = (float)(sine * _attentionFactor);
            }
        }

        return new Rows(positionCount, cosines, sines);
    }

    private static void ScaleYarn(double[] frequencies, RopeScaling scaling, int original, int headDim, double theta)
    {
        double low = Dimension(scaling.BetaFast);
        double high = Dimension(scaling.BetaSlow);
        if (scaling.Truncate) (low, high) = (Math.Floor(low), Math.Ceiling(high));
        (low, high) = (Math.Max(low, 0), Math.Min(high, headDim - 1));
        if (low == high) high += 0.001;
        for (int i = 0; i < frequencies.Length; i++)
        {
            double ramp = Math.Clamp((i - low) / (high - low), 0, 1);
            frequencies[i] = (frequencies[i] / scaling.Factor * ramp) + (frequencies[i] * (1 - ramp));
        }

        // The dimension whose wave turns that many times over the trained length.
        double Dimension(double rotations) => headDim * Math.Log(original / (2 * Math.PI * rotations)) / (2 * Math.Log(theta));
    }

    public sealed record Rows(int PositionCount, float[] Cosines, float[] Sines);
}
