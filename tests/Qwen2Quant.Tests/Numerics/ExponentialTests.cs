using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Tests.Numerics;

public class ExponentialTests
{
    [Fact]
    public void EveryWidthGivesTheSameBitsAndNanStays()
    {
        float[] values = [.. Enumerable.Range(-87_500, 175_500).Where(static i => i % 7 == 0).Select(static i => i * 1e-3f), 0f, -0f, float.NegativeInfinity, float.NaN, BitConverter.UInt32BitsToSingle(0x7fc00001)];
        float[] padded = [.. values, .. new float[16]];
        float[] expected = [.. padded.Select(static value => Exponential.Evaluate(value))];
        Assert.True(float.IsNaN(expected[values.Length - 1]) && float.IsNaN(expected[values.Length - 2]));
        foreach (SimdLevel level in Simd.Available)
        {
            float[] found = level switch
            {
                >= SimdLevel.Avx512 => Evaluate<Lanes512>(padded),
                >= SimdLevel.Avx2 => Evaluate<Lanes256>(padded),
                >= SimdLevel.Vector128 => Evaluate<Lanes128>(padded),
                _ => Evaluate<Lanes1>(padded),
            };
            Assert.Equal(expected.Take(values.Length).Select(BitConverter.SingleToInt32Bits), found.Take(values.Length).Select(BitConverter.SingleToInt32Bits));
        }
    }

    [Fact]
    public void PositiveArgumentsAreAccurateToo()
    {
        for (float x = 0; x <= Exponential.Largest; x += 0.00713f) Assert.InRange(Exponential.Evaluate(x) / Math.Exp(x), 1 - 2e-7, 1 + 2e-7);
        Assert.True(float.IsFinite(Exponential.Evaluate(Exponential.Largest)));
    }

    private static float[] Evaluate<T>(float[] values) where T : unmanaged, ILanes<T>
    {
        float[] found = new float[values.Length];
        for (int i = 0; i <= values.Length - T.Width; i += T.Width) T.Store(Exponential.Evaluate(T.Load(in values[i])), ref found[i]);
        return found;
    }
}
