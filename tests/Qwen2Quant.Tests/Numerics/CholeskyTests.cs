using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Tests.Numerics;

public sealed class CholeskyTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(5)]
    [InlineData(128)]
    [InlineData(129)]
    [InlineData(300)]
    public void FactorIsThatOfPlainDoublesForAnyThreads(int n)
    {
        // Powers over five decades, fewer rows than columns, 1 % of damping: the conditioning of a real Hessian.
        double[] hessian = Hessian(n, (n / 2) + 1, 0.01);
        double[] expected = Plain(hessian, n);
        float[] one = [.. hessian.Select(value => (float)value)], three = [.. one];
        for (int row = 1; row < n; row++) three.AsSpan(row * n, row).Fill(float.NaN);
        Assert.True(Cholesky.TryFactor(one, n, new WorkerTeam(1)));
        Assert.True(Cholesky.TryFactor(three, n, new WorkerTeam(3)));
        for (int row = 0; row < n; row++)
        {
            for (int column = row; column < n; column++)
            {
                Assert.Equal(BitConverter.SingleToInt32Bits(one[(row * n) + column]), BitConverter.SingleToInt32Bits(three[(row * n) + column]));
                double allowed = 2e-4 * Math.Sqrt(hessian[(row * n) + row]);
                Assert.InRange(one[(row * n) + column] - expected[(row * n) + column], -allowed, allowed);
            }
        }
    }

    [Theory]
    [InlineData(2)]
    [InlineData(200)]
    public void IndefiniteMatricesAreRefused(int n)
    {
        float[] ones = new float[n * n];
        Array.Fill(ones, 1f);
        Assert.False(Cholesky.TryFactor(ones, n, new WorkerTeam(2)));
        Assert.False(Cholesky.TryFactor(new float[n * n], n, new WorkerTeam(2)));
        Array.Fill(ones, float.NaN);
        Assert.False(Cholesky.TryFactor(ones, n, new WorkerTeam(2)));
    }

    private static double[] Hessian(int n, int rank, double damping)
    {
        Random random = new(n);
        double[] rows = new double[rank * n], hessian = new double[n * n];
        for (int i = 0; i < rows.Length; i++) rows[i] = (random.NextDouble() - 0.5) * Math.Pow(10, i % n % 5 / 2.0);
        for (int i = 0; i < n; i++)
        {
            for (int j = 0; j < n; j++)
            {
                for (int k = 0; k < rank; k++) hessian[(i * n) + j] += rows[(k * n) + i] * rows[(k * n) + j];
            }
        }

        double mean = Enumerable.Range(0, n).Average(i => hessian[(i * n) + i]);
        for (int i = 0; i < n; i++) hessian[(i * n) + i] += damping * mean;
        return hessian;
    }

    private static double[] Plain(double[] hessian, int n)
    {
        double[] factor = new double[n * n];
        for (int j = n - 1; j >= 0; j--)
        {
            for (int i = j; i >= 0; i--)
            {
                double sum = hessian[(i * n) + j];
                for (int k = j + 1; k < n; k++) sum -= factor[(i * n) + k] * factor[(j * n) + k];
                factor[(i * n) + j] = i == j ? Math.Sqrt(sum) : sum / factor[(j * n) + j];
            }
        }

        return factor;
    }
}
