using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public unsafe class RowKernelTests
{
    public static TheoryData<SimdLevel> Levels => [.. Simd.Available];

    [Theory]
    [MemberData(nameof(Levels))]
    public void ExpIsWithinThreeTenMillionths(SimdLevel level)
    {
        for (int count = 0; count <= 33; count++)
        {
            float[] row = [.. Enumerable.Range(0, count).Select(i => 2.5f - (i * 2.7f))];
            float[] found = [.. row];
            float sum;
            fixed (float* first = found) sum = RowKernels.ExpAndSum(first, count, 2.5f, level);
            for (int i = 0; i < count; i++) Assert.InRange(found[i] / Math.Exp((double)row[i] - 2.5f), 1 - 3e-7, 1 + 3e-7);
            Assert.Equal(found.Sum(value => (double)value), sum, 1e-6);
        }

        float[] far = [-1e30f, float.NegativeInfinity, -88, -104];
        fixed (float* first = far) RowKernels.ExpAndSum(first, far.Length, 0, level);
        Assert.All(far, value => Assert.InRange(value, 0, 2e-38f));
    }

    [Theory]
    [MemberData(nameof(Levels))]
    public void MaxIsTheGreatestAtEveryPlace(SimdLevel level)
    {
        for (int count = 1; count <= 150; count++)
        {
            for (int place = 0; place < count; place++)
            {
                float[] row = [.. Enumerable.Range(0, count).Select(i => i == place ? -1.5f : -2 - i)];
                fixed (float* first = row) Assert.Equal(-1.5f, RowKernels.Max(first, count, level));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Levels))]
    public void SiluMultipliesAnyLength(SimdLevel level)
    {
        for (int count = 0; count <= 33; count++)
        {
            float[] gate = [.. Enumerable.Range(0, count).Select(i => (i - 16) * 1.3f)];
            float[] up = [.. Enumerable.Range(0, count).Select(i => 1 + (i * 0.1f))];
            float[] found = new float[count];
            fixed (float* g = gate, u = up, f = found) RowKernels.SiluMultiply(g, u, f, count, level);
            for (int i = 0; i < count; i++)
            {
                double expected = gate[i] / (1 + Math.Exp(-(double)gate[i])) * up[i];
                Assert.Equal(expected, found[i], Math.Abs(expected) * 6e-7);
            }
        }

        float[] extremes = [1000, -1000, 1e30f], ones = [1, 1, 1], result = new float[3];
        fixed (float* g = extremes, u = ones, f = result) RowKernels.SiluMultiply(g, u, f, 3, level);
        Assert.Equal(1000, result[0]);
        Assert.InRange(result[1], -1e-30f, 0);
        Assert.Equal(1e30f, result[2]);
    }

    [Theory]
    [MemberData(nameof(Levels))]
    public void RotationTurnsTheHalvesAgainstEachOther(SimdLevel level)
    {
        for (int half = 0; half <= 33; half++)
        {
            float[] head = [.. Enumerable.Range(0, 2 * half).Select(i => 1f + i)];
            float[] cosine = [.. Enumerable.Range(0, half).Select(i => MathF.Cos(i))], sine = [.. Enumerable.Range(0, half).Select(i => MathF.Sin(i))];
            float[] found = [.. head];
            fixed (float* h = found, c = cosine, s = sine) RowKernels.Rotate(h, c, s, half, level);
            for (int i = 0; i < half; i++)
            {
                Assert.Equal((head[i] * cosine[i]) - (head[i + half] * sine[i]), found[i], 1e-4f);
                Assert.Equal((head[i + half] * cosine[i]) + (head[i] * sine[i]), found[i + half], 1e-4f);
            }
        }
    }
}
