using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Validation.Numerics;

namespace Qwen2Quant.Tests.Validation;

public class SoftmaxKernelTests
{
    /// <summary>0 to two blocks of 16 lanes plus one, and lengths about a large row.</summary>
    public static TheoryData<int> Lengths => [.. Enumerable.Range(0, 34).Concat([1000, 1007, 4096])];

    [Fact]
    public void ExponentialIsAccurateOverItsWholeRange()
    {
        double worst = 0;
        for (float x = 0; x >= -87; x -= 0.00113f)
        {
            double exact = Math.Exp(x);
            worst = Math.Max(worst, Math.Abs(Exponential.Evaluate(x) - exact) / exact);
        }

        Assert.True(worst < 2e-7, $"relative error {worst}");
        Assert.Equal(1f, Exponential.Evaluate(0f));
        Assert.Equal(1f, Exponential.Evaluate(-0f));
        Assert.Equal(Exponential.Evaluate(-87f), Exponential.Evaluate(-1e30f));
        Assert.InRange(Exponential.Evaluate(float.NegativeInfinity), 0f, 1.7e-38f);
    }

    [Theory]
    [MemberData(nameof(Lengths))]
    public void EveryWidthGivesTheSameBits(int length)
    {
        float[] first = Row(length, 11);
        float[] second = Row(length, 12);
        float firstMaximum = SoftmaxRows.Maximum(first, SimdLevel.Scalar);
        float secondMaximum = SoftmaxRows.Maximum(second, SimdLevel.Scalar);
        double sum = SoftmaxRows.SumOfExponentials(first, firstMaximum, SimdLevel.Scalar);
        DivergenceSums sums = DivergenceRows.Sum(first, firstMaximum, second, secondMaximum, SimdLevel.Scalar);
        Assert.Equal(sum, sums.BaseSum);
        foreach (SimdLevel level in Simd.Available)
        {
            Assert.Equal(firstMaximum, SoftmaxRows.Maximum(first, level));
            Assert.Equal(sum, SoftmaxRows.SumOfExponentials(first, firstMaximum, level));
            Assert.Equal(sums, DivergenceRows.Sum(first, firstMaximum, second, secondMaximum, level));
        }

        Assert.Equal(firstMaximum, SoftmaxRows.Maximum(first));
        Assert.Equal(sum, SoftmaxRows.SumOfExponentials(first, firstMaximum));
        Assert.Equal(sums, DivergenceRows.Sum(first, firstMaximum, second, secondMaximum));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(17)]
    [InlineData(1000)]
    [InlineData(20_011)]
    public void LogSoftmaxAndDivergenceEqualTheNaiveOnes(int length)
    {
        float[] first = Row(length, 21);
        float[] second = Row(length, 22);
        float firstMaximum = SoftmaxRows.Maximum(first);
        float secondMaximum = SoftmaxRows.Maximum(second);
        Assert.Equal(first.Max(), firstMaximum);
        double logSum = Math.Log(SoftmaxRows.SumOfExponentials(first, firstMaximum));
        double[] exact = Naive.LogSoftmax(first);
        for (int i = 0; i < length; i++) Assert.Equal(exact[i], first[i] - firstMaximum - logSum, 2e-6);
        double divergence = DivergenceRows.Sum(first, firstMaximum, second, secondMaximum).Divergence;
        Assert.Equal(Naive.Divergence(first, second), divergence, 2e-6);
    }

    [Fact]
    public void SmallDivergencesKeepTheirSize()
    {
        Random random = new(5);
        float[] first = Row(5000, 31);
        float[] second = [.. first.Select(value => value + (float)((random.NextDouble() - 0.5) * 2e-3))];
        double exact = Naive.Divergence(first, second);
        Assert.InRange(exact, 1e-8, 1e-5);
        double found = DivergenceRows.Sum(first, first.Max(), second, second.Max()).Divergence;
        Assert.Equal(exact, found, 1e-7);
    }

    [Fact]
    public void EqualRowsDivergeByExactlyZero()
    {
        float[] row = Row(1003, 41);
        Assert.Equal(0.0, DivergenceRows.Sum(row, row.Max(), row, row.Max()).Divergence);
    }

    [Fact]
    public void NonFiniteValuesAreSeenAtEveryPlace()
    {
        foreach (float bad in new[] { float.NaN, float.PositiveInfinity, float.NegativeInfinity })
        {
            for (int place = 0; place < 50; place++)
            {
                float[] row = Row(50, 51);
                row[place] = bad;
                foreach (SimdLevel level in Simd.Available)
                {
                    Assert.True(float.IsNaN(SoftmaxRows.Maximum(row, level)), $"{bad} at {place}, {level}");
                }
            }
        }
    }

    [Fact]
    public void LargestFiniteValuesAreNotTakenForInfinities()
    {
        float[] row = Row(40, 61);
        row[7] = float.MaxValue;
        row[8] = float.MinValue;
        row[39] = float.MaxValue;
        foreach (SimdLevel level in Simd.Available) Assert.Equal(float.MaxValue, SoftmaxRows.Maximum(row, level));
    }

    [Fact]
    public void IndexOfFindsTheFirstOfEqualMaxima()
    {
        float[] row = Row(100, 71);
        row[33] = row[66] = 50;
        Assert.Equal(33, SoftmaxRows.IndexOf(row, 50));
        float[] zeros = [-1, -0f, 0f, -2];
        Assert.Equal(1, SoftmaxRows.IndexOf(zeros, 0f));
        Assert.Equal(1, SoftmaxRows.IndexOf(zeros, -0f));
    }

    private static float[] Row(int length, int seed)
    {
        Random random = new(seed);
        return [.. Enumerable.Range(0, length).Select(_ => (float)((random.NextDouble() * 30) - 20))];
    }
}
