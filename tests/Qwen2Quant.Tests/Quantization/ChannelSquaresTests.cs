using Qwen2Quant.Core.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Tests.Quantization;

public sealed class ChannelSquaresTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(512)]
    [InlineData(1061)]
    public void SumsAreThoseOfPlainDoublesWhateverThreadsAndCalls(int width)
    {
        const int rowCount = 37;
        Random random = new(width);
        float[] rows = [.. Enumerable.Range(0, rowCount * width).Select(_ => (float)((random.NextDouble() - 0.5) * Math.Pow(10, random.Next(-20, 15))))];
        double[] expected = new double[width];
        for (int i = 0; i < rows.Length; i++) expected[i % width] += (double)rows[i] * rows[i];

        ChannelSquares whole = new(width), cut = new(width);
        whole.Add(rows, rowCount, new WorkerTeam(1));
        WorkerTeam team = new(3);
        for (int row = 0; row < rowCount; row += 5) cut.Add(rows.AsSpan(row * width, Math.Min(5, rowCount - row) * width), Math.Min(5, rowCount - row), team);
        Assert.Equal(expected, whole.Sums.ToArray());
        Assert.Equal(expected, cut.Sums.ToArray());
        Assert.Equal((rowCount, rowCount), (whole.RowCount, cut.RowCount));
    }

    [Fact]
    public void HalvesAddUp()
    {
        float[] rows = [1, 2, 3, 4, 5, 6];
        ChannelSquares first = new(2), second = new(2);
        first.Add(rows.AsSpan(0, 2), 1, new WorkerTeam(1));
        second.Add(rows.AsSpan(2), 2, new WorkerTeam(1));
        first.Add(second);
        Assert.Equal([35.0, 56.0], first.Sums.ToArray());
        Assert.Equal(3, first.RowCount);
    }

    [Fact]
    public void OtherWidthsAreRefused()
    {
        Assert.Throws<ArgumentException>(() => new ChannelSquares(2).Add(new ChannelSquares(3)));
        Assert.Throws<ArgumentException>(() => new ChannelSquares(2).Add(new float[3], 2, new WorkerTeam(1)));
    }
}
