using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class RopeTableTests
{
    private static readonly Qwen2Config Config = new() { HiddenSize = 1024, NumAttentionHeads = 8, NumKeyValueHeads = 8, HeadDim = 128, RopeTheta = 1e6 };

    // Check values of theta 1e6 and 32768 positions: the ramp runs from dimension 23 to 40 for heads of 128, 11 to 20 for heads of 64.
    [Theory]
    [InlineData(128, 23, 40)]
    [InlineData(64, 11, 20)]
    public void YarnKeepsHighFrequenciesAndDividesLowOnes(int headDim, int low, int high)
    {
        Qwen2Config config = Config with { HeadDim = headDim };
        double[] plain = new RopeTable(config).Frequencies.ToArray();
        double[] yarn = new RopeTable(config with { RopeScaling = new RopeScaling(RopeScalingType.Yarn, 4) { OriginalMaxPositionEmbeddings = 32768 } }).Frequencies.ToArray();
        for (int i = 0; i < plain.Length; i++)
        {
            double ramp = Math.Clamp((double)(i - low) / (high - low), 0, 1);
            Assert.Equal(plain[i] * (1 - (0.75 * ramp)), yarn[i], 1e-12);
        }
    }

    [Theory]
    [InlineData(null, 1.138629436)]
    [InlineData(1.5, 1.5)]
    public void YarnScalesCosines(double? factor, double expected)
    {
        RopeTable table = new(Config with { RopeScaling = new RopeScaling(RopeScalingType.Yarn, 4) { AttentionFactor = factor } });
        Assert.Equal(expected, table.For(1).Cosines[0], 1e-6);
    }

    [Fact]
    public void LinearDividesPositions()
    {
        RopeTable plain = new(Config), linear = new(Config with { RopeScaling = new RopeScaling(RopeScalingType.Linear, 2) });
        Assert.Equal(plain.For(11).Sines.AsSpan(5 * 64, 64).ToArray(), linear.For(11).Sines.AsSpan(10 * 64, 64).ToArray());
    }

    [Fact]
    public void GrowthKeepsRows()
    {
        RopeTable table = new(Config);
        float[] first = table.For(3).Cosines;
        Assert.Equal(first.AsSpan(0, 3 * 64).ToArray(), table.For(1000).Cosines.AsSpan(0, 3 * 64).ToArray());
        Assert.Equal((float)Math.Cos(999), table.For(1000).Cosines[999 * 64]);
    }
}
