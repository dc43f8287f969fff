using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Tests.Numerics;

public class LevelsTests
{
    [Fact]
    public void Nearest_is_the_nearest_level_whatever_the_sign_of_the_step()
    {
        float[] table = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
        Levels[] grids = [Levels.Scaled(0.25f, 16, 8), Levels.Scaled(-0.25f, 16, 8), new(-1.5f, 0.125f, 32), new(0, 0.01f, 16, 0, table), new(0, -0.01f, 16, 0, table)];
        Random random = new(8);
        foreach (Levels levels in grids)
        {
            for (int n = 0; n < 2000; n++)
            {
                float value = (float)((random.NextDouble() - 0.5) * 6);
                float best = Enumerable.Range(0, levels.CodeCount).Min(code => MathF.Abs(levels.Value(code) - value));
                Assert.Equal(best, MathF.Abs(levels.Value(levels.Nearest(value)) - value), 1e-6f);
            }
        }
    }

    [Fact]
    public void The_lower_of_two_equally_near_codes_is_taken()
    {
        Assert.Equal(8, Levels.Scaled(1, 16, 8).Nearest(0.5f));
        Assert.Equal(7, Levels.Scaled(-1, 16, 8).Nearest(0.5f));
        Assert.Equal(0, Levels.Scaled(1, 16, 8).Nearest(-100));
        Assert.Equal(15, Levels.Scaled(1, 16, 8).Nearest(100));
    }

    [Fact]
    public void A_zero_step_takes_the_middle_code() => Assert.Equal(8, Levels.Scaled(0, 16, 8).Nearest(3));

    [Fact]
    public void Without_an_origin_the_sign_of_a_zero_product_is_kept() =>
        Assert.Equal(0x80000000u, BitConverter.SingleToUInt32Bits(Levels.Scaled(-0.5f, 16, 8).Value(8)));
}
