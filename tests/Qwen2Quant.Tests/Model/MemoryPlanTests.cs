using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

/// <summary>What is kept in memory, by the number of bytes that there are.</summary>
public sealed class MemoryPlanTests
{
    private static readonly Qwen2Config Config = ForwardTests.Configs["grouped"] with { HiddenSize = 512, IntermediateSize = 4096, NumHiddenLayers = 4, HeadDim = 64, VocabSize = 4000 };

    private static readonly WindowShape Windows = new(20, 512, 255);

    private readonly Qwen2Model _model = Qwen2Model.Load(Config, MemorySource.Random(Config, 1), new ForwardOptions { Threads = 2, ResidentBytes = 0 });

    [Fact]
    public void LessMemoryKeepsLessInOrder()
    {
        List<MemoryPlan> plans = [];
        for (long bytes = 2_000_000_000; Try(bytes) is { } plan; bytes -= 1_000_000) plans.Add(plan);
        Assert.Equal([(true, false), (false, true), (false, false)], plans.Select(plan => (plan.IsWhole, plan.HoldsLayer)).Distinct());
        MemoryPlan[] layerwise = [.. plans.Where(plan => !plan.IsWhole)];
        Assert.False(layerwise[0].SpillsStates);
        Assert.True(layerwise[^1].SpillsStates);
        Assert.All(layerwise, plan => Assert.InRange(plan.BatchTokens, 32, 512));
        Assert.All(layerwise, plan => Assert.Equal(20L * 512 * 512 * sizeof(float), plan.StateBytes));
        Assert.All(layerwise.Where(plan => plan.HoldsLayer), plan => Assert.True(plan.LayerBytes >= _model.LargestLayerBytes));
        Assert.All(plans, plan => Assert.InRange(plan.LogitBytes, 4000 * sizeof(float), 512 << 20));
    }

    /// <summary>What a plan says fits, by the sizes of the parts.</summary>
    [Fact]
    public void NoPlanTakesMoreThanItWasGiven()
    {
        for (long bytes = 2_000_000_000; Try(bytes) is { } plan; bytes -= 7_000_000)
        {
            if (plan.IsWhole)
            {
                Assert.True(_model.WeightBytes + plan.LogitBytes < bytes);
                continue;
            }

            long states = plan.SpillsStates ? 0 : plan.StateBytes;
            long layers = states + _model.ActivationBytes(plan.BatchTokens) + KvCache.ByteCountOfLayer(Config, 512) + Math.Min(plan.LayerBytes, _model.LargestLayerBytes);
            long logits = states + plan.LogitBytes + (plan.HoldsOutput ? _model.OutputBytes : 0);
            Assert.InRange(Math.Max(layers, logits), 0, bytes - (64 << 20));
        }
    }

    [Fact]
    public void TheSmallestMemoryIsNamedAndSuffices()
    {
        QuantException error = Assert.Throws<QuantException>(() => MemoryPlan.Decide(1_000_000, [_model], Windows));
        Assert.Equal(ErrorKind.Resource, error.Kind);
        long smallest = long.Parse(error.Expected!.Split(' ')[^1].Replace("MB", "", StringComparison.Ordinal), CultureInfo.InvariantCulture) * 1_000_000;
        Assert.False(MemoryPlan.Decide(smallest, [_model], Windows).HoldsLayer);
        Assert.Null(Try(smallest - 1_000_000));
    }

    [Fact]
    public void HeldMemoryAndASecondModelCount()
    {
        long needed = 2_000_000_000;
        while (Try(needed - 1_000_000) is { IsWhole: true }) needed -= 1_000_000;
        Assert.False(MemoryPlan.Decide(needed, [_model], Windows, heldBytes: 2_000_000).IsWhole);
        Assert.False(MemoryPlan.Decide(needed, [_model, _model], Windows).IsWhole);
        Assert.True(MemoryPlan.Decide(2 * needed, [_model, _model], Windows).IsWhole);
    }

    [Theory]
    [InlineData(29, 493)]
    [InlineData(512, 512)]
    [InlineData(256, 512)]
    [InlineData(600, 512)]
    [InlineData(5000, 512)]
    public void BatchesAreWholeWindowsOrPartsOfOne(int length, int expected)
    {
        WindowShape windows = new(1000, length, length / 2);
        long bytes = 1L << 40;
        while (MemoryPlan.Decide(bytes, [_model], windows) is { IsWhole: true }) bytes = bytes * 9 / 10;
        Assert.Equal(expected, MemoryPlan.Decide(bytes, [_model], windows).BatchTokens);
    }

    private MemoryPlan? Try(long bytes)
    {
        try
        {
            return MemoryPlan.Decide(bytes, [_model], Windows);
        }
        catch (QuantException)
        {
            return null;
        }
    }
}
