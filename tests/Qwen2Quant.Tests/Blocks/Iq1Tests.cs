using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

public class Iq1Tests
{
    private const int Length = Iq1Grid.RowLength;

    /// <summary>The three smallest distances that occur, by distance and then by index, for every tenth key without a row.</summary>
    [Fact]
    public void Neighbours_are_the_three_nearest_shells()
    {
        int found = 0;
        for (int number = 0; number < 6561; number++)
        {
            byte[] codes = [.. Enumerable.Range(0, Length).Select(j => (byte)(number / (int)Math.Pow(3, j) % 3))];
            int key = Iq1Grid.Key(codes);
            if (Iq1Grid.Shared.IndexOf(key) >= 0)
            {
                found++;
                Assert.Equal(codes, Iq1Grid.Shared.Row(Iq1Grid.Shared.IndexOf(key)).ToArray());
            }
            else if (number % 10 == 0)
            {
                int Distance(int row) => codes.Zip(Iq1Grid.Shared.Row(row).ToArray(), (a, b) => (a - b) * (a - b)).Sum();
                int[] rows = [.. Enumerable.Range(0, Iq1Grid.RowCount).OrderBy(Distance).ThenBy(row => row)];
                int[] shells = [.. rows.Select(Distance).Distinct().Take(3)];
                Assert.Equal(rows.Where(row => shells.Contains(Distance(row))), Iq1Grid.Shared.Neighbours(key).ToArray().Select(row => (int)row));
            }
        }

        Assert.Equal(Iq1Grid.RowCount, found);
    }

    [Theory]
    [InlineData("IQ1_S", 0)]
    [InlineData("IQ1_S", 8)]
    [InlineData("IQ1_S", 64)]
    [InlineData("IQ1_M", 0)]
    [InlineData("IQ1_M", 8)]
    [InlineData("IQ1_M", 64)]
    public void Rounding_loses_as_little_as_any_row(string name, int metricLength)
    {
        ICodebookGrid grid = (ICodebookGrid)BlockData.Block(name).Codec!;
        Random random = new(5);
        float[] parameters = new float[grid.Shape.ParameterCount];
        float[] values = BlockData.Values(256);
        ((IBlockCodec)grid).Fit(values, [], Effort.Fast, parameters);
        for (int start = 0; start < 256; start += Length)
        {
            float[] metric = Metric(random, metricLength);
            byte[] codes = new byte[Length];
            grid.Round(values.AsSpan(start, Length), metric, parameters, start, codes);
            Levels levels = grid.GetLevels(parameters, start / grid.Shape.SubBlockLength);
            double least = Enumerable.Range(0, Iq1Grid.RowCount).Min(row => Loss(Iq1Grid.Shared.Row(row).ToArray()));
            Assert.True(Iq1Grid.Shared.IndexOf(Iq1Grid.Key(codes)) >= 0);
            Assert.InRange(Loss(codes), 0, least * (1 + 1e-9));

            double Loss(byte[] row)
            {
                double[] error = [.. row.Select((code, j) => values[start + j] - (double)levels.Value(code))];
                double sum = 0;
                for (int i = 0; i < 64; i++) sum += error[i / 8] * error[i % 8] * (metricLength == 64 ? metric[i] : i / 8 != i % 8 ? 0 : metricLength == 8 ? metric[i / 8] : 1);
                return sum;
            }
        }
    }

    /// <summary>A granule of equal levels, as a zero scale makes them, becomes zeros.</summary>
    [Fact]
    public void Rounding_under_a_zero_scale_chooses_zeros()
    {
        ICodebookGrid grid = (ICodebookGrid)BlockData.Block("IQ1_M").Codec!;
        byte[] codes = new byte[Length];
        grid.Round(BlockData.Values(Length), [], new float[grid.Shape.ParameterCount], 0, codes);
        Assert.All(codes, code => Assert.Equal(1, code));
    }

    /// <summary>The search's rows are the best of all for the delta that it stores and the step of least squares, of which the stored one is a multiple.</summary>
    [Theory]
    [InlineData("IQ1_S")]
    [InlineData("IQ1_M")]
    public void High_effort_stores_the_best_rows(string name)
    {
        BlockType type = BlockData.Block(name);
        ICodebookGrid grid = (ICodebookGrid)type.Codec!;
        float[] values = BlockData.Values(256 * 8), importance = BlockData.Importance();
        float[] weights = [.. values.Select((_, i) => importance[i % 512])];
        byte[] blocks = new byte[type.ByteCount(values.Length)];
        type.EncodeRow(Simd.Level, values, weights, Effort.High, blocks);
        float[] parameters = new float[grid.Shape.ParameterCount];
        byte[] codes = new byte[256], best = new byte[Length];
        double stored = 0, least = 0;
        for (int start = 0; start < values.Length; start += 256)
        {
            ((IBlockCodec)grid).Unpack(blocks.AsSpan(start / 256 * type.BytesPerBlock, type.BytesPerBlock), codes, parameters);
            (double product, double square) = (0, 0);
            for (int i = 0; i < 256; i++)
            {
                double value = grid.GetLevels(parameters, i / grid.Shape.SubBlockLength).Value(codes[i]);
                product += weights[start + i] * values[start + i] * value;
                square += weights[start + i] * value * value;
            }

            Assert.InRange(product / square, 0.75, 0.95);
            parameters[0] *= (float)(product / square);
            for (int i = 0; i < 256; i++)
            {
                if (i % Length == 0) grid.Round(values.AsSpan(start + i, Length), weights.AsSpan(start + i, Length), parameters, i, best);
                Levels levels = grid.GetLevels(parameters, i / grid.Shape.SubBlockLength);
                stored += weights[start + i] * Math.Pow(values[start + i] - levels.Value(codes[i]), 2);
                least += weights[start + i] * Math.Pow(values[start + i] - levels.Value(best[i % Length]), 2);
            }
        }

        Assert.InRange(least / stored, 0.998, 1);
    }

    private static float[] Metric(Random random, int length)
    {
        if (length < 64) return [.. Enumerable.Range(0, length).Select(_ => (float)random.NextDouble())];
        double[] factor = [.. Enumerable.Range(0, 64).Select(_ => random.NextDouble() - 0.5)];
        return [.. Enumerable.Range(0, 64).Select(i => (float)(Enumerable.Range(0, 8).Sum(k => factor[(i / 8 * 8) + k] * factor[(i % 8 * 8) + k]) + (i / 8 == i % 8 ? 0.05 : 0)))];
    }
}
