using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Safetensors;

namespace Qwen2Quant.Benchmarks.Encoders;

/// <summary>Rows to encode, with one importance a column.</summary>
public sealed record SampleRows(string Name, bool IsRandom, int RowLength, float[] Values, float[] Importance)
{
    private const int RandomRows = 24;
    private const int RandomRowLength = 4864;

    /// <summary>Gaussian, Laplace and outlier-heavy rows of a matrix's usual scale; seeds are fixed.</summary>
    public static IEnumerable<SampleRows> Random()
    {
        yield return Make("gaussian", 1, random => Gaussian(random));
        yield return Make("laplace", 2, random => Math.Log(Math.Max(1e-12, random.NextDouble())) * (random.Next(2) * 2 - 1));
        yield return Make("outliers", 3, random => Gaussian(random) * (random.Next(50) == 0 ? 8 : 1));

        static SampleRows Make(string name, int seed, Func<Random, double> draw)
        {
            Random random = new(seed);
            float[] values = new float[RandomRows * RandomRowLength];
            for (int i = 0; i < values.Length; i++) values[i] = (float)(0.02 * draw(random));
            return new SampleRows(name, true, RandomRowLength, values, RandomImportance(random, RandomRowLength));
        }
    }

    /// <summary>The matrices of a safetensors folder or a GGUF file, each at most 64 of its rows, evenly spread.</summary>
    /// <param name="meanSquares">Importance by tensor; random where there is none.</param>
    public static IEnumerable<SampleRows> Of(string path, IReadOnlyDictionary<string, float[]> meanSquares)
    {
        using ITensorSource source = path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)
            ? GgufFile.Open(new DiskFileLayer(), path, new ReadOptions())
            : SafetensorsCheckpoint.Open(new DiskFileLayer(), path, new ReadOptions());
        foreach (TensorEntry entry in source.Tensors.Where(entry => entry.Shape.Rank == 2 && entry.Shape.RowLength % 32 == 0))
        {
            int rowLength = (int)entry.Shape.RowLength;
            long step = Math.Max(1, entry.Shape.RowCount / 64);
            int rowCount = (int)Math.Min(64, entry.Shape.RowCount);
            float[] values = new float[rowCount * rowLength];
            byte[] raw = new byte[entry.Type.ByteCount(rowLength)];
            for (int row = 0; row < rowCount; row++)
            {
                source.ReadRaw(entry, row * step * raw.Length, raw);
                entry.Type.Decode(raw, values.AsSpan(row * rowLength, rowLength));
            }

            yield return new SampleRows(entry.Name.Replace("model.layers.", "", StringComparison.Ordinal).Replace(".weight", "", StringComparison.Ordinal), false, rowLength, values, meanSquares.GetValueOrDefault(entry.Name) ?? RandomImportance(new Random(4), rowLength));
        }
    }

    /// <summary>The sum over values of weight x squared error, with a weight for each column or for each value; 1 where none is given.</summary>
    public double WeightedError(ElementType type, ReadOnlySpan<byte> blocks, ReadOnlySpan<float> importance)
    {
        float[] decoded = new float[Values.Length];
        type.Decode(blocks, decoded);
        double sum = 0;
        for (int i = 0; i < decoded.Length; i++)
        {
            double difference = (double)decoded[i] - Values[i];
            sum += (importance.IsEmpty ? 1 : importance[i % importance.Length]) * difference * difference;
        }

        return sum;
    }

    /// <summary>Mean squares of activations: log-normal, as those of real models roughly are.</summary>
    private static float[] RandomImportance(Random random, int count)
    {
        float[] importance = new float[count];
        for (int i = 0; i < count; i++) importance[i] = (float)Math.Exp(1.2 * Gaussian(random));
        return importance;
    }

    private static double Gaussian(Random random) => Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
}
