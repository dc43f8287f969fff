namespace Qwen2Quant.Tests.Blocks;

/// <summary>Rows on which encoders go wrong.</summary>
internal static class SpecialRows
{
    public static IEnumerable<(string What, float[] Row)> For(int blockLength)
    {
        Random random = new(20240607);
        float[] Make(int length, Func<int, float> value) => [.. Enumerable.Range(0, length).Select(value)];
        float Normal()
        {
            double radius = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble()));
            return (float)(0.02 * radius * Math.Cos(2 * Math.PI * random.NextDouble()));
        }

        for (int blocks = 0; blocks <= 3; blocks++) yield return ($"{blocks} normal blocks", Make(blocks * blockLength, _ => Normal()));
        yield return ("17 normal blocks", Make(17 * blockLength, _ => Normal()));
        yield return ("zeros", new float[blockLength]);
        yield return ("minus zeros", Make(blockLength, _ => -0f));
        yield return ("zeros of both signs", Make(blockLength, i => i % 3 == 1 ? -0f : 0f));
        yield return ("constant", Make(blockLength, _ => 0.3f));
        yield return ("negative constant", Make(blockLength, _ => -7f));
        yield return ("two values", Make(blockLength, i => i % 2 == 0 ? -1f : 1f));
        yield return ("two values, first positive", Make(blockLength, i => i % 2 == 0 ? 1f : -1f));
        yield return ("ties", Make(blockLength, i => (i % 16) - 7.5f));
        yield return ("halves of 127", Make(blockLength, i => i == 0 ? 127 : (i % 32) - 15.5f));
        yield return ("smallest denormals", Make(blockLength, i => float.Epsilon * (i % 5)));
        yield return ("denormals", Make(blockLength, _ => Normal() * 1e-38f));
        yield return ("tiny", Make(blockLength, _ => Normal() * 1e-9f));
        yield return ("below the search's threshold", Make(blockLength, _ => Normal() * 1e-17f));
        yield return ("large", Make(blockLength, _ => Normal() * 1e6f));
        yield return ("one outlier", Make(blockLength, i => i == 5 ? 1e30f : Normal()));
        yield return ("largest floats", Make(blockLength, i => i % 2 == 0 ? float.MaxValue : float.MinValue));
        yield return ("one value among zeros", Make(blockLength, i => i == blockLength - 1 ? -0.25f : 0));
        yield return ("wide range", Make(2 * blockLength, i => Normal() * MathF.ScaleB(1, (i % 41) - 20)));
    }
}
