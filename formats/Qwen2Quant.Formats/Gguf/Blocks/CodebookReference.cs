namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Which rows ggml rounds once more under the scale that its scan has found.</summary>
internal enum Resnap
{
    /// <summary>Those whose rounded values had not been on the codebook.</summary>
    OffRows,

    /// <summary>All, if one had not been.</summary>
    WhenAnyIsOff,

    /// <summary>All.</summary>
    Always,
}

/// <summary>What tells ggml's encoders of these types apart.</summary>
internal readonly record struct ReferenceScan()
{
    /// <summary>Distances from which neighbours are taken.</summary>
    public int Shells { get; init; }

    /// <summary>Scales tried to each side of the first.</summary>
    public int Tries { get; init; }

    /// <summary>Distance of the tried scales, in levels of the greatest value.</summary>
    public float Spacing { get; init; }

    /// <summary>Magnitude below which a sub-block is taken as zero.</summary>
    public float Epsilon { get; init; }

    public Resnap Resnap { get; init; }

    /// <summary>True when the scan starts from the best scale of a rounding without codebook, false when from the greatest value.</summary>
    public bool StartsFromRounding { get; init; }

    /// <summary>Multiple of the block's mean square that is added to x^2 in the weights under importance.</summary>
    public float VarianceFactor { get; init; } = 1;

    /// <summary>Share of that without importance, where the weight is the sum itself; none where ggml demands importance, which is then 1.</summary>
    public float? PlainVarianceFactor { get; init; }

    /// <summary>Factor of the stored d.</summary>
    public float Fudge { get; init; } = 1;
}

/// <summary>
/// ggml's encoders of codebook blocks, operation for operation. Levels are 1, 3, 5 and so on, whatever the codebook's elements are: the scan of a sub-block
/// rounds under many scales, moves each row that has left the codebook to the best of its neighbours, and keeps what correlates best.
/// </summary>
internal readonly ref struct CodebookReference(Codebook codebook, ReferenceScan scan, int subBlocks, bool hasEvenSigns)
{
    private readonly int _topField = codebook.Levels.Length - 1;
    private readonly int _rowLength = codebook.RowLength;

    /// <summary>Encodes 256 values and returns d before it is rounded to a half.</summary>
    public float Encode(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, in CodebookCodes codes)
    {
        codes.Indices.Clear();
        codes.Signs.Clear();
        codes.Scales.Clear();
        float squares = 0;
        foreach (float value in values) squares += value * value;
        float variance = scan.VarianceFactor * squares / values.Length;
        int length = values.Length / subBlocks;
        Span<float> scales = stackalloc float[subBlocks];
        Span<float> weights = stackalloc float[length];
        float maxScale = 0;
        for (int b = 0; b < subBlocks; b++)
        {
            ReadOnlySpan<float> part = values.Slice(b * length, length);
            for (int i = 0; i < length; i++)
            {
                float square = part[i] * part[i];
                weights[i] = importance.IsEmpty && scan.PlainVarianceFactor is { } factor ? (factor * variance) + square
                    : (importance.IsEmpty ? 1 : importance[(b * length) + i]) * MathF.Sqrt(variance + square);
            }

            scales[b] = EncodeSubBlock(part, weights, codes.Indices.Slice(b * length / _rowLength, length / _rowLength), codes.Signs.Slice(b * length / 8, length / 8));
            maxScale = MathF.Max(maxScale, scales[b]);
        }

        if (maxScale == 0)
        {
            codes.Indices.Clear();
            if (hasEvenSigns) codes.Signs.Clear();
            return 0;
        }

        float d = maxScale / 31;
        float inverse = 1 / d;
        for (int b = 0; b < subBlocks; b++) codes.Scales[b] = (byte)Math.Clamp(NearestInt(0.5f * ((inverse * scales[b]) - 1)), 0, 15);
        return d * scan.Fudge;
    }

    private float EncodeSubBlock(ReadOnlySpan<float> values, ReadOnlySpan<float> weights, Span<ushort> indices, Span<byte> signs)
    {
        int length = values.Length;
        Span<float> magnitudes = stackalloc float[length];
        Span<byte> naturalSigns = stackalloc byte[length / 8];
        for (int g = 0; g < naturalSigns.Length; g++) naturalSigns[g] = Unsign(values.Slice(8 * g, 8), weights.Slice(8 * g, 8), magnitudes.Slice(8 * g, 8));
        float max = magnitudes[0];
        foreach (float magnitude in magnitudes) max = MathF.Max(max, magnitude);
        if (!(max >= scan.Epsilon)) return 0;

        Span<float> roots = stackalloc float[length];
        for (int i = 0; i < length; i++) roots[i] = MathF.Sqrt(weights[i]);
        Span<byte> best = stackalloc byte[length];
        Span<byte> fields = stackalloc byte[length];
        Span<bool> isBestOn = stackalloc bool[length / _rowLength];
        Span<bool> isOn = stackalloc bool[length / _rowLength];
        best.Clear();
        isBestOn.Fill(scan.Resnap != Resnap.WhenAnyIsOff);
        float top = (2 * _topField) + 1;
        float scale = max / top;
        float extent = max;
        if (scan.StartsFromRounding)
        {
            scale = PositiveScale(_topField + 2, magnitudes, weights, best);
            extent = scale * (_topField + 1);
            if (!(extent > 0)) return 0;
        }

        float bestScore = 0;
        for (int attempt = -scan.Tries; attempt <= scan.Tries; attempt++)
        {
            float inverse = (top + (attempt * scan.Spacing)) / extent;
            for (int row = 0; row < isOn.Length; row++) isOn[row] = Snap(row, magnitudes, roots, inverse, 1 / inverse, fields);
            (float sumXq, float sumQ2) = Sums(magnitudes, weights, fields);
            if (sumQ2 > 0 && sumXq * sumXq > bestScore * sumQ2)
            {
                scale = sumXq / sumQ2;
                bestScore = scale * sumXq;
                fields.CopyTo(best);
                isOn.CopyTo(isBestOn);
            }
        }

        bool isAnyOff = isBestOn.Contains(false);
        if (scale > 0 && (isAnyOff || scan.Resnap == Resnap.Always))
        {
            for (int row = 0; row < isOn.Length; row++)
            {
                if (scan.Resnap != Resnap.OffRows || !isBestOn[row]) Snap(row, magnitudes, roots, 1 / scale, scale, best);
            }

            (float sumXq, float sumQ2) = Sums(magnitudes, weights, best);
            if (sumQ2 > 0) scale = sumXq / sumQ2;
        }

        for (int g = 0; g < signs.Length; g++) signs[g] = (byte)(scale < 0 ? ~naturalSigns[g] : naturalSigns[g]);
        for (int row = 0; row < indices.Length; row++) indices[row] = (ushort)Math.Max(0, codebook.Find(codebook.WordOf(best.Slice(row * _rowLength, _rowLength))));
        return MathF.Abs(scale);
    }

    /// <summary>Magnitudes and signs of eight values. Where signs must be even and are not, the value of least weight times square changes its sign and has a negative magnitude.</summary>
    private byte Unsign(ReadOnlySpan<float> values, ReadOnlySpan<float> weights, Span<float> magnitudes)
    {
        int signs = 0;
        int least = 0;
        for (int i = 0; i < 8; i++)
        {
            magnitudes[i] = values[i] >= 0 ? values[i] : -values[i];
            if (!(values[i] >= 0)) signs |= 1 << i;
            if (weights[i] * values[i] * values[i] < weights[least] * values[least] * values[least]) least = i;
        }

        if (!hasEvenSigns || (System.Numerics.BitOperations.PopCount((uint)signs) & 1) == 0) return (byte)signs;
        magnitudes[least] = -magnitudes[least];
        return (byte)(signs ^ (1 << least));
    }

    /// <summary>Rounds one row to fields on the codebook. False when they had not been on it and a neighbour was taken.</summary>
    private bool Snap(int row, ReadOnlySpan<float> magnitudes, ReadOnlySpan<float> roots, float inverse, float scale, Span<byte> fields)
    {
        int first = row * _rowLength;
        ReadOnlySpan<float> x = magnitudes.Slice(first, _rowLength);
        Span<byte> rounded = fields.Slice(first, _rowLength);
        for (int i = 0; i < x.Length; i++) rounded[i] = (byte)Math.Clamp(NearestInt(0.5f * ((inverse * x[i]) - 1)), 0, _topField);
        int word = codebook.WordOf(rounded);
        if (codebook.Find(word) >= 0) return true;

        ReadOnlySpan<ushort> neighbours = codebook.Neighbours(word, scan.Shells);
        float least = float.MaxValue;
        int nearest = neighbours[0];
        foreach (ushort neighbour in neighbours)
        {
            float distance = 0;
            for (int i = 0; i < x.Length; i++)
            {
                float difference = (scale * ((2 * codebook.FieldOf(codebook.Words[neighbour], i)) + 1)) - x[i];
                distance += roots[first + i] * difference * difference;
            }

            if (distance < least) (least, nearest) = (distance, neighbour);
        }

        for (int i = 0; i < x.Length; i++) rounded[i] = (byte)codebook.FieldOf(codebook.Words[nearest], i);
        return false;
    }

    private static (float SumXq, float SumQ2) Sums(ReadOnlySpan<float> magnitudes, ReadOnlySpan<float> weights, ReadOnlySpan<byte> fields)
    {
        (float sumXq, float sumQ2) = (0, 0);
        for (int i = 0; i < magnitudes.Length; i++)
        {
            float q = (2 * fields[i]) + 1;
            sumXq += weights[i] * magnitudes[i] * q;
            sumQ2 += weights[i] * q * q;
        }

        return (sumXq, sumQ2);
    }

    /// <summary>ggml's <c>make_qp_quants</c>. Codes are bytes that wrap: a value below zero may get one near 255, and its sums count it so.</summary>
    private static float PositiveScale(int limit, ReadOnlySpan<float> values, ReadOnlySpan<float> weights, Span<byte> codes)
    {
        float max = 0;
        foreach (float value in values) max = MathF.Max(max, value);
        if (max < Search.Epsilon) return 0;
        float inverse = limit / max;
        float leastError = 0;
        for (int i = 0; i < values.Length; i++)
        {
            codes[i] = (byte)NearestInt(inverse * values[i]);
            float difference = values[i] - (1 / inverse * codes[i]);
            leastError += weights[i] * difference * difference;
        }

        for (int attempt = -4; attempt <= 4; attempt++)
        {
            if (attempt == 0) continue;
            float tried = ((0.1f * attempt) + limit) / max;
            float error = 0;
            for (int i = 0; i < values.Length; i++)
            {
                float difference = values[i] - (1 / tried * Math.Min(limit, NearestInt(tried * values[i])));
                error += weights[i] * difference * difference;
            }

            if (error < leastError) (leastError, inverse) = (error, tried);
        }

        (float sumXq, float sumQ2) = (0, 0);
        for (int i = 0; i < values.Length; i++)
        {
            int code = Math.Min(limit, NearestInt(inverse * values[i]));
            codes[i] = (byte)code;
            sumXq += weights[i] * values[i] * code;
            sumQ2 += weights[i] * code * code;
        }

        bool hasChanged = true;
        for (int sweep = 0; sweep < 5 && hasChanged; sweep++)
        {
            hasChanged = false;
            for (int i = 0; i < values.Length; i++)
            {
                float otherXq = sumXq - (weights[i] * values[i] * codes[i]);
                float otherQ2 = sumQ2 - (weights[i] * codes[i] * codes[i]);
                if (!(otherXq > 0 && otherQ2 > 0)) continue;
                int code = Math.Min(limit, NearestInt(values[i] * otherQ2 / otherXq));
                if (code == codes[i]) continue;
                otherXq += weights[i] * values[i] * code;
                otherQ2 += weights[i] * code * code;
                if (otherXq * otherXq * sumQ2 > sumXq * sumXq * otherQ2)
                {
                    (codes[i], sumXq, sumQ2) = ((byte)code, otherXq, otherQ2);
                    hasChanged = true;
                }
            }
        }

        return sumQ2 > 0 ? sumXq / sumQ2 : 0;
    }

    private static int NearestInt(float value) => (int)MathF.Round(value, MidpointRounding.ToEven);
}
