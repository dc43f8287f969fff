using Qwen2Quant.Pipeline.Batch;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Axes: round ticks in order inside the axis, whatever the values.</summary>
public sealed class PlotScaleTests
{
    [Theory]
    [InlineData(0.0, 1.0, "0.0 0.2 0.4 0.6 0.8 1.0")]
    [InlineData(338.6, 994.2, "400 600 800 1000")]
    [InlineData(0.0, 3e9, "0e0 5e8 1e9 1.5e9 2e9 2.5e9 3e9")]
    [InlineData(12.0, 12.03, "12.000 12.005 12.010 12.015 12.020 12.025 12.030")]
    public void LinearTicksAreRound(double min, double max, string labels) =>
        Assert.Equal(labels, string.Join(' ', PlotScale.Linear([min, max], 7).Ticks.Select(tick => tick.Label)));

    [Theory]
    [InlineData(0.0007, 0.4, "0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5")]
    [InlineData(1e-7, 10.0, "1e-6 0.0001 0.01 1")]
    [InlineData(11.0, 12.0, "10 11 12 13")]
    public void LogarithmicTicksAreRound(double min, double max, string labels) =>
        Assert.Equal(labels, string.Join(' ', PlotScale.Logarithmic([min, max]).Ticks.Select(tick => tick.Label)));

    [Theory]
    [InlineData(0.0, 0.0)]
    [InlineData(5.0, 5.0)]
    [InlineData(1e-300, 1e-300)]
    [InlineData(1e29, 1e29)]
    [InlineData(1e-300, 1e29)]
    [InlineData(0.999999, 1.0)]
    public void TicksLieInOrderOnTheAxis(double min, double max)
    {
        foreach (PlotScale scale in new[] { PlotScale.Linear([min, max], 7), PlotScale.Logarithmic([min, max]) })
        {
            Assert.InRange(scale.Ticks.Count, 1, 22);
            double[] places = [.. scale.Ticks.Select(tick => scale.At(tick.Value))];
            Assert.Equal(places.Order(), places);
            Assert.All(places, place => Assert.InRange(place, 0, 1));
            Assert.Equal(places.Length, scale.Ticks.Select(tick => tick.Label).Distinct().Count());
            Assert.True(scale.At(min) <= scale.At(max));
        }
    }
}
