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
        Assert.Equal(expected, table.For(0, 1, 1).Keys.Cosines[0], 1e-6);
    }

    [Fact]
    public void LinearDividesPositions()
    {
        RopeTable plain = new(Config), linear = new(Config with { RopeScaling = new RopeScaling(RopeScalingType.Linear, 2) });
        Assert.Equal(plain.For(0, 11, 11).Keys.Sines.AsSpan(5 * 64, 64).ToArray(), linear.For(10, 1, 11).Keys.Sines);
    }

    [Fact]
    public void LatePositionsAreAsExactAsEarlyOnes()
    {
        RopeAngles angles = new RopeTable(Config).For(999_990, 20, 1_000_010);
        for (int token = 999_990; token < 1_000_010; token++) Assert.Equal((float)Math.Cos(token), angles.Keys.Cosines[angles.Offset(token)]);
    }

    [Fact]
    public void PartsOfWhatWasAskedForLastAreTheSameRows()
    {
        RopeTable table = new(Config);
        RopeAngles angles = table.For(100, 50, 150);
        Assert.Same(angles, table.For(149, 1, 151));
        RopeAngles next = table.For(150, 1, 151);
        Assert.NotSame(angles, next);
        Assert.Equal(angles.Keys.Sines.AsSpan(angles.Offset(140), 64).ToArray(), table.For(140, 1, 151).Keys.Sines);
    }

    [Theory]
    [InlineData(4096)]
    [InlineData(65536)]
    public void DynamicScalingTakesItsBaseFromTheWholeLength(int length)
    {
        RopeTable table = new(Config with { MaxPositionEmbeddings = 32768, RopeScaling = new RopeScaling(RopeScalingType.Dynamic, 2) });
        double theta = length <= 32768 ? 1e6 : 1e6 * Math.Pow(3, 128.0 / 126);
        RopeAngles angles = table.For(7, 1, length);
        for (int i = 0; i < 64; i++) Assert.Equal(Math.Sin(7 * Math.Pow(theta, -i / 64.0)), angles.Keys.Sines[i], 1e-7);
    }

    // Chunks of 6 tokens, 2 of them local: strides of 4, at most position 6.
    [Theory]
    [InlineData(3, new[] { 3, 2, 1, 0 })]
    [InlineData(5, new[] { 5, 4, 3, 2, 1, 0 })]
    [InlineData(7, new[] { 6, 5, 4, 3, 3, 2, 1, 0 })]
    [InlineData(9, new[] { 6, 5, 4, 3, 5, 4, 3, 2, 1, 0 })]
    public void DualChunksMapDistances(int token, int[] distances)
    {
        PositionScheme scheme = new(new DualChunkAttention(6, 2));
        List<int> found = [];
        for (int kind = 0; kind < scheme.KindCount; kind++)
        {
            (int low, int high) = scheme.Keys(kind, token);
            for (int key = low; key < high; key++) found.Add(scheme.QueryPosition(kind, token) - scheme.KeyPosition(key));
        }

        Assert.Equal(distances, found);
    }
}
