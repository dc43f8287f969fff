using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Tests.Numerics;

public class FiniteCheckTests
{
    [Fact]
    public void Finds_the_first_value_that_is_not_finite_at_every_length_and_place()
    {
        float[] bad = [float.NaN, float.PositiveInfinity, float.NegativeInfinity, BitConverter.UInt32BitsToSingle(0xff800001)];
        for (int length = 0; length <= 67; length++)
        {
            float[] values = [.. Enumerable.Range(0, length).Select(i => i % 2 == 0 ? float.MaxValue : float.MinValue)];
            Assert.Equal(-1, FiniteCheck.FindNonFinite(values));
            for (int at = 0; at < length; at++)
            {
                values[at] = bad[(at + length) % bad.Length];
                values[length - 1] = at == length - 1 ? values[at] : float.NaN;
                Assert.Equal(at, FiniteCheck.FindNonFinite(values));
                foreach (SimdLevel level in Simd.Available) Assert.Equal(float.PositiveInfinity, FiniteCheck.LargestMagnitude(level, values));
                values[at] = values[length - 1] = 1;
            }
        }
    }

    [Fact]
    public void Every_width_finds_the_same_peak()
    {
        Random random = new(11);
        for (int length = 0; length <= 67; length++)
        {
            float[] values = [.. Enumerable.Range(0, length).Select(_ => (float)(random.NextDouble() - 0.5))];
            float expected = values.Select(MathF.Abs).DefaultIfEmpty().Max();
            foreach (SimdLevel level in Simd.Available) Assert.Equal(expected, FiniteCheck.LargestMagnitude(level, values));
        }
    }
}
