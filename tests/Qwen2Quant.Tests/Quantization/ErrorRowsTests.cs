using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Tests.Quantization;

public class ErrorRowsTests
{
    [Fact]
    public void Every_width_gives_the_bits_of_sixteen_interleaved_sums()
    {
        Random random = new(20);
        for (int length = 0; length <= 99; length++)
        {
            float[] values = [.. Enumerable.Range(0, length).Select(_ => random.NextSingle() - 0.5f)];
            float[] decoded = [.. values.Select(value => value + ((random.NextSingle() - 0.5f) * 0.01f))];
            double[] errors = new double[16], squares = new double[16];
            for (int i = 0; i < length; i++)
            {
                double difference = (double)decoded[i] - values[i];
                errors[i % 16] += difference * difference;
                squares[i % 16] += (double)values[i] * values[i];
            }

            (double, double) expected = (Fold(errors), Fold(squares));
            foreach (SimdLevel level in Simd.Available) Assert.Equal(expected, ErrorRows.Sum(level, values, decoded));
        }
    }

    private static double Fold(double[] parts) =>
        parts.Length == 1 ? parts[0] : Fold([.. parts.Take(parts.Length / 2).Zip(parts.Skip(parts.Length / 2), (low, high) => low + high)]);
}
