namespace Qwen2Quant.Model;

/// <summary>
/// Cosines and sines of the rotary positions (Su et al., "RoFormer"), with linear, dynamic or YaRN scaling (Peng et al., sections 3.2 to 3.4).
/// Angles are computed in double, for positions of any size. Thread-safe.
/// </summary>
/// <remarks>
/// Dynamic scaling has, once a text is longer than <c>max_position_embeddings</c>, frequencies that depend on the text's length, which is here the
/// tokens in the cache and all of the call together, as in Transformers. So a window that is passed in one call has the frequencies of its own length
/// throughout, whatever is passed before or after it; a cache that grows by calls keeps the keys of earlier tokens as they were turned, for the length
/// of their time, and only new tokens take the new frequencies. The same text in other calls gives other results then, for this scaling alone.
/// </remarks>
internal sealed class RopeTable
{
    private readonly int _half;
    private readonly double[] _frequencies;
    private readonly double _attentionFactor;
    private readonly Func<int, double>? _dynamicTheta;
    private readonly int _trainedLength;
    private volatile RopeAngles? _last;

    public RopeTable(Qwen2Config config)
    {
        Positions = new PositionScheme(config.DualChunkAttention);
        _half = config.HeadDim / 2;
        _frequencies = PlainFrequencies(config.RopeTheta);
        _attentionFactor = 1;
        if (config.RopeScaling is not { } scaling) return;
        switch (scaling.Type)
        {
            case RopeScalingType.Linear:
                for (int i = 0; i < _half; i++) _frequencies[i] /= scaling.Factor;
                break;
            case RopeScalingType.Dynamic:
                // Transformers reads no original_max_position_embeddings here.
                _trainedLength = config.MaxPositionEmbeddings;
                double exponent = config.HeadDim / (config.HeadDim - 2.0);
                _dynamicTheta = length => config.RopeTheta * Math.Pow((scaling.Factor * length / _trainedLength) - (scaling.Factor - 1), exponent);
                break;
            case RopeScalingType.Yarn:
                ScaleYarn(_frequencies, scaling, scaling.OriginalMaxPositionEmbeddings ?? config.MaxPositionEmbeddings, config.HeadDim, config.RopeTheta);
                _attentionFactor = scaling.AttentionFactor ?? scaling.DefaultAttentionFactor;
                break;
        }
    }

    public PositionScheme Positions { get; }

    /// <summary>Angles per position, in radians, of a text of at most the trained length.</summary>
    public ReadOnlySpan<double> Frequencies => _frequencies;

    /// <summary>The angles of tokens <paramref name="firstToken"/> and on; those asked for last are kept, for the next layer.</summary>
    /// <param name="textLength">Tokens of the text as far as it is known.</param>
    public RopeAngles For(int firstToken, int tokenCount, int textLength)
    {
        int length = textLength > _trainedLength && _dynamicTheta is not null ? textLength : 0;
        if (_last is { } last && last.Covers(firstToken, tokenCount, length)) return last;
        double[] frequencies = length > 0 ? PlainFrequencies(_dynamicTheta!(length)) : _frequencies;
        RopeRows keys = Rows(Positions.KeyPosition);
        RopeRows[] queries = new RopeRows[Positions.KindCount];
        for (int kind = 0; kind < queries.Length; kind++)
        {
            int ofKind = kind;
            queries[kind] = queries.Length == 1 ? keys : Rows(token => Positions.QueryPosition(ofKind, token));
        }

        return _last = new RopeAngles(firstToken, tokenCount, length, _half, keys, queries);

        RopeRows Rows(Func<int, int> positionOf)
        {
            float[] cosines = new float[checked(tokenCount * _half)];
            float[] sines = new float[cosines.Length];
            for (int row = 0; row < tokenCount; row++)
            {
                double position = positionOf(firstToken + row);
                for (int i = 0; i < _half; i++)
                {
                    (double sine, double cosine) = Math.SinCos(position * frequencies[i]);
                    cosines[(row * _half) + i] = (float)(cosine * _attentionFactor);
                    sines[(row * _half) + i] = (float)(sine * _attentionFactor);
                }
            }

            return new RopeRows(cosines, sines);
        }
    }

    private double[] PlainFrequencies(double theta)
    {
        double[] frequencies = new double[_half];
        for (int i = 0; i < _half; i++) frequencies[i] = Math.Pow(theta, -(double)i / _half);
        return frequencies;
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
}

/// <summary>Half a head's width of cosines and sines for each of a run of tokens.</summary>
internal sealed record RopeRows(float[] Cosines, float[] Sines);

/// <summary>The angles of a run of tokens: as keys, and as queries of each kind of <see cref="PositionScheme"/>.</summary>
internal sealed record RopeAngles(int FirstToken, int TokenCount, int TextLength, int Half, RopeRows Keys, RopeRows[] Queries)
{
    public bool Covers(int firstToken, int tokenCount, int textLength) =>
        textLength == TextLength && firstToken >= FirstToken && (long)firstToken + tokenCount <= (long)FirstToken + TokenCount;

    /// <summary>Where a token's angles begin in each array.</summary>
    public int Offset(int token) => (token - FirstToken) * Half;
}
