using System.Numerics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

/// <summary>The grids of the types on a codebook with signs.</summary>
public class CodebookGridTests
{
    public static TheoryData<string> Types => ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"];

    /// <summary>Against every row with every permitted sign.</summary>
    [Theory]
    [MemberData(nameof(Types))]
    public void Round_finds_what_trying_every_combination_finds(string name)
    {
        ICodebookGrid grid = (ICodebookGrid)BlockData.Block(name).Codec!;
        int k = grid.Shape.GranuleLength;
        Codebook book = BookOf(name);
        Random random = new(7);
        float[] parameters = [1, .. Enumerable.Repeat(3f, grid.Shape.ParameterCount - 1)];
        Levels levels = grid.GetLevels(parameters, 0);
        for (int trial = 0; trial < 4; trial++)
        {
            float[] values = [.. Enumerable.Range(0, k).Select(_ => (float)(random.NextDouble() - 0.5) * levels.Step * levels.Table![^1] * 2)];
            foreach (float[] metric in new[] { [], Diagonal(random, k), Positive(random, k) })
            {
                // All combinations of two rows under a full metric are too many for a test.
                if (book.RowLength < k && metric.Length > k) continue;
                byte[] codes = new byte[k];
                grid.Round(values, metric, parameters, 0, codes);
                double found = Cost(values, metric, [.. codes.Select(code => levels.Value(code))]);
                Assert.InRange(found, 0, LeastCost(book, name, values, metric, levels.Step) * (1 + 1e-5));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void Rounded_granules_lie_on_the_codebook_with_permitted_signs(string name)
    {
        BlockType type = BlockData.Block(name);
        ICodebookGrid grid = (ICodebookGrid)type.Codec!;
        GridShape shape = grid.Shape;
        Random random = new(11);
        foreach (float d in new[] { 0f, 0.01f })
        {
            float[] parameters = [d, .. Enumerable.Range(1, shape.ParameterCount - 1).Select(i => (float)(i & 15))];
            byte[] codes = new byte[256], unpacked = new byte[256], block = new byte[type.BytesPerBlock];
            for (int i = 0; i < 256; i += shape.GranuleLength)
            {
                float[] values = [.. Enumerable.Range(0, shape.GranuleLength).Select(_ => (float)(random.NextDouble() - 0.5))];
                grid.Round(values, i % 3 == 0 ? [] : Positive(random, values.Length), parameters, i, codes.AsSpan(i, shape.GranuleLength));
            }

            type.Codec!.Pack(codes, parameters, block);
            type.Codec.Unpack(block, unpacked, new float[shape.ParameterCount]);
            BlockData.AssertSameBytes(codes, unpacked, name);
        }
    }

    [Fact]
    public void Packing_refuses_codes_that_no_row_has()
    {
        IBlockCodec codec = BlockData.Block("IQ2_XXS").Codec!;
        byte[] codes = [.. Enumerable.Repeat((byte)5, 256)];
        Assert.Throws<ArgumentException>(() => codec.Pack(codes, new float[codec.Shape.ParameterCount], new byte[66]));
    }

    [Theory]
    [InlineData("IQ2_XXS", 2)]
    [InlineData("IQ2_XS", 2)]
    [InlineData("IQ2_S", 1)]
    [InlineData("IQ3_XXS", 2)]
    [InlineData("IQ3_S", 3)]
    public void Neighbours_are_all_rows_at_the_least_distances(string name, int shells)
    {
        Codebook book = BookOf(name);
        Random random = new(3);
        for (int trial = 0; trial < 50; trial++)
        {
            byte[] fields = [.. Enumerable.Range(0, book.RowLength).Select(_ => (byte)random.Next(book.Levels.Length))];
            int word = book.WordOf(fields);
            if (book.Find(word) >= 0) continue;
            int[] distances = [.. Enumerable.Range(0, book.Count).Select(row => Enumerable.Range(0, book.RowLength).Sum(j => (book.FieldOf(book.Words[row], j) - fields[j]) * (book.FieldOf(book.Words[row], j) - fields[j])))];
            int limit = distances.Distinct().Order().ElementAt(shells - 1);
            int[] expected = [.. Enumerable.Range(0, book.Count).Where(row => distances[row] <= limit).OrderBy(row => distances[row])];
            Assert.Equal(expected, book.Neighbours(word, shells).ToArray().Select(row => (int)row));
        }
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void Blocks_of_zeros_are_zero_bytes_at_every_effort(string name)
    {
        BlockType type = BlockData.Block(name);
        foreach (Effort effort in Enum.GetValues<Effort>())
        {
            foreach (float[] importance in new[] { [], Enumerable.Repeat(1f, 512).ToArray(), new float[512] })
            {
                Assert.DoesNotContain(BlockData.Encode(type, new float[512], 512, importance, effort), value => value != 0);
            }
        }
    }

    /// <summary>The weighted product of each decoded block with its values is theirs with themselves, but for about a tenth of the error and the rounding of d to a half: a least squares d loses all of it.</summary>
    [Theory]
    [MemberData(nameof(Types))]
    public void Searched_blocks_keep_their_gain(string name)
    {
        BlockType type = BlockData.Block(name);
        float[] values = BlockData.Values(4096), importance = BlockData.Importance(), decoded = new float[values.Length];
        foreach (Effort effort in new[] { Effort.Fast, Effort.Normal, Effort.High })
        {
            type.Decode(BlockData.Encode(type, values, 512, importance, effort), decoded);
            for (int start = 0; start < values.Length; start += 256)
            {
                (double kept, double whole, double error) = (0, 0, 0);
                for (int i = start; i < start + 256; i++)
                {
                    kept += (double)importance[i % 512] * values[i] * decoded[i];
                    whole += (double)importance[i % 512] * values[i] * values[i];
                    error += importance[i % 512] * Math.Pow(values[i] - (double)decoded[i], 2);
                }

                Assert.InRange(kept / whole, 1 - (0.15 * error / whole) - 1e-3, 1 + 1e-3);
            }
        }
    }

    private static Codebook BookOf(string name) => name switch
    {
        "IQ2_XXS" => Codebooks.Iq2Xxs,
        "IQ2_XS" => Codebooks.Iq2Xs,
        "IQ2_S" => Codebooks.Iq2S,
        "IQ3_XXS" => Codebooks.Iq3Xxs,
        _ => Codebooks.Iq3S,
    };

    private static float[] Diagonal(Random random, int k) => [.. Enumerable.Range(0, k).Select(_ => (float)Math.Exp((2 * random.NextDouble()) - 1))];

    /// <summary>A random symmetric positive definite matrix.</summary>
    private static float[] Positive(Random random, int k)
    {
        double[] root = [.. Enumerable.Range(0, k * k).Select(_ => random.NextDouble() - 0.5)];
        return [.. Enumerable.Range(0, k * k).Select(at => (float)(Enumerable.Range(0, k).Sum(i => root[(i * k) + (at / k)] * root[(i * k) + (at % k)]) + (at / k == at % k ? 0.1 : 0)))];
    }

    private static double Cost(float[] values, float[] metric, double[] rounded)
    {
        int k = values.Length;
        double cost = 0;
        for (int i = 0; i < k; i++)
        {
            double e = rounded[i] - values[i];
            if (metric.Length <= k) cost += (metric.Length == 0 ? 1 : metric[i]) * e * e;
            else for (int j = 0; j < k; j++) cost += e * metric[(i * k) + j] * (rounded[j] - values[j]);
        }

        return cost;
    }

    private static double LeastCost(Codebook book, string name, float[] values, float[] metric, float step)
    {
        int k = values.Length;
        double least = double.PositiveInfinity;
        double[] rounded = new double[k];
        for (int signs = 0; signs < 1 << k; signs++)
        {
            if (!name.EndsWith("_S", StringComparison.Ordinal) && (BitOperations.PopCount((uint)signs) & 1) != 0) continue;
            // Under a metric without mixed terms each row is the best of its own.
            double sum = 0;
            for (int first = 0; first < k; first += book.RowLength)
            {
                double leastRow = double.PositiveInfinity;
                for (int row = 0; row < book.Count; row++)
                {
                    for (int j = 0; j < book.RowLength; j++) rounded[first + j] = book.Rows[(row * book.RowLength) + j] * step * (((signs >> (first + j)) & 1) != 0 ? -1 : 1);
                    int end = first + book.RowLength;
                    leastRow = Math.Min(leastRow, Cost(values[first..end], metric.Length == k ? metric[first..end] : metric, rounded[first..end]));
                }

                sum += leastRow;
            }

            least = Math.Min(least, sum);
        }

        return least;
    }
}
