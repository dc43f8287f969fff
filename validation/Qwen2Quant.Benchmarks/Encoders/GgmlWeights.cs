namespace Qwen2Quant.Benchmarks.Encoders;

/// <summary>The weights under which ggml's searches judge errors (ggml-quants.c): not what a matrix product sees, but what its encoders minimize.</summary>
internal static class GgmlWeights
{
    /// <summary>One weight for each value of the sample.</summary>
    public static float[] Of(string type, SampleRows sample, float[] importance)
    {
        float[] weights = new float[sample.Values.Length];
        int group = type is "Q4_K" or "Q5_K" && importance.Length == 0 ? 32 : type == "IQ4_NL" ? 32 : type is "Q4_0" or "Q4_1" or "Q5_0" or "Q5_1" ? sample.RowLength : Math.Min(256, sample.RowLength);
        if (sample.RowLength % group != 0) group = 32;
        for (int start = 0; start < weights.Length; start += group)
        {
            ReadOnlySpan<float> values = sample.Values.AsSpan(start, group);
            double meanSquare = 0;
            foreach (float value in values) meanSquare += (double)value * value / group;
            for (int i = 0; i < group; i++) weights[start + i] = (float)Weight(type, values[i], meanSquare, importance.Length == 0 ? null : importance[(start + i) % sample.RowLength]);
        }

        return weights;
    }

    private static double Weight(string type, double x, double meanSquare, double? importance)
    {
        if (importance is { } given)
        {
            return type switch
            {
                "Q8_0" or "MXFP4" or "NVFP4" or "TQ1_0" or "TQ2_0" => 1,
                "Q6_K" => given,
                "Q4_0" or "Q4_1" or "Q5_0" or "Q5_1" or "Q2_K" or "IQ2_XXS" or "IQ2_XS" => given * Math.Sqrt(meanSquare + (x * x)),
                _ => given * Math.Sqrt((2 * meanSquare) + (x * x)),
            };
        }

        return type switch
        {
            "Q2_K" => Math.Abs(x),
            "Q4_K" or "Q5_K" => Math.Sqrt(meanSquare) + Math.Abs(x),
            "Q3_K" or "Q6_K" or "IQ4_NL" or "IQ4_XS" or "IQ3_XXS" or "IQ3_S" or "IQ1_M" => x * x,
            "IQ2_S" => (0.25 * 2 * meanSquare) + (x * x),
            _ => 1,
        };
    }
}
