using Qwen2Quant.Core.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Tests.Quantization;

public sealed class GramMatrixTests
{
    [Theory]
    [InlineData(1, 3)]
    [InlineData(97, 1500)]
    [InlineData(200, 1024)]
    [InlineData(600, 37)]
    public void SumsAreThoseOfDoublesWhateverThreadsAndCalls(int width, int rowCount)
    {
        Random random = new(width);
        float[] rows = [.. Enumerable.Range(0, rowCount * width).Select(i => (float)((random.NextDouble() - 0.4) * Math.Pow(10, i % width % 7)))];
        GramMatrix whole = new(width), cut = new(width);
        whole.Add(rows, rowCount, new WorkerTeam(1));
        whole.Fold(new WorkerTeam(1));
        WorkerTeam team = new(3);
        for (int row = 0; row < rowCount; row += 311) cut.Add(rows.AsSpan(row * width, Math.Min(311, rowCount - row) * width), Math.Min(311, rowCount - row), team);
        cut.Fold(team);
        Assert.Equal(rowCount, cut.RowCount);
        for (int i = 0; i < width; i++)
        {
            for (int j = i; j < width; j += 1 + (j % 13))
            {
                (double sum, double left, double right) = (0, 0, 0);
                for (int k = 0; k < rowCount; k++)
                {
                    (double a, double b) = (rows[(k * width) + i], rows[(k * width) + j]);
                    (sum, left, right) = (sum + (a * b), left + (a * a), right + (b * b));
                }

                Assert.InRange(whole[i, j] - sum, -1e-6 * Math.Sqrt(left * right), 1e-6 * Math.Sqrt(left * right));
                Assert.Equal(whole[i, j], whole[j, i]);
                Assert.Equal(whole[i, j], cut[j, i]);
            }
        }
    }

    [Fact]
    public void PartitionsAddUpOnceFolded()
    {
        WorkerTeam team = new(1);
        GramMatrix first = new(2), second = new(2);
        first.Add([1, 2], 1, team);
        second.Add([3, 4, 5, 6], 2, team);
        Assert.Throws<InvalidOperationException>(() => first.Add(second));
        first.Fold(team);
        second.Fold(team);
        first.Add(second);
        Assert.Equal((35.0, 44.0, 56.0, 3L), (first[0, 0], first[0, 1], first[1, 1], first.RowCount));
        Assert.Throws<ArgumentException>(() => first.Add(new GramMatrix(3)));
    }

    [Fact]
    public void BytesAreStatedForLargeWidths()
    {
        Assert.InRange(GramMatrix.ByteCount(4864), 4864L * 4864 * 4, 120_000_000);
        Assert.InRange(GramMatrix.ByteCount(18944), 18944L * 18944 * 4, 1_550_000_000);
    }
}
