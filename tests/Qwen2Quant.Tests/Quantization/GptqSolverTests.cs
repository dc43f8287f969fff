using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Gguf.Blocks;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Blocks;

namespace Qwen2Quant.Tests.Quantization;

public sealed class GptqSolverTests
{
    private const int Width = 512;
    private static readonly WorkerTeam Team = new(2);

    public static TheoryData<string> Grids => [.. GgmlTypes.All.Select(type => type.Element).Where(type => type.CanEncode && GptqSolver.GranuleLength(type) > 0).Select(type => type.Name)];

    /// <summary>The published algorithm in double precision, with the inverse's factor, under the parameters that the encoder fits.</summary>
    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q8_0")]
    [InlineData("Q4_K")]
    [InlineData("Q6_K")]
    public void CodesAreThoseOfTheTextbookUpToTies(string name)
    {
        const int rowCount = 7;
        BlockType type = BlockData.Block(name);
        float[] weights = BlockData.Values(rowCount * Width);
        GramMatrix gram = Gram(Activations(700));
        GptqHessian hessian = new(name, gram, 1, new GptqOptions { Damping = 0.01, Shrinkage = 0, ActivationOrder = false, DescentPasses = 0 }, Team);
        byte[] encoded = new byte[type.ByteCount(weights.Length)];
        new GptqSolver(hessian).Solve(new RowSlab(name, 0, Width, weights), type, Effort.Fast, encoded, Team);
        byte[] fitted = BlockData.Encode(type, weights, Width, hessian.Importance, Effort.Fast);
        double[] inverse = InverseFactor(gram, 0.01);
        int differing = 0, sameAsRounding = 0;
        for (int row = 0; row < rowCount; row++)
        {
            int rowBytes = encoded.Length / rowCount;
            (byte[] codes, _) = Unpack(type, encoded.AsSpan(row * rowBytes, rowBytes));
            (byte[] rounded, Levels[] levels) = Unpack(type, fitted.AsSpan(row * rowBytes, rowBytes));
            double[] live = [.. weights.AsSpan(row * Width, Width).ToArray().Select(value => (double)value)];
            for (int j = 0; j < Width; j++)
            {
                Levels level = levels[j / type.Codec!.Shape.SubBlockLength];
                int code = level.Nearest((float)live[j]);
                if (codes[j] != code)
                {
                    differing++;
                    // Only a tie: the other code is as near but for single precision. From here on that choice is followed.
                    double gap = Math.Abs(Math.Abs(level.Value(codes[j]) - live[j]) - Math.Abs(level.Value(code) - live[j]));
                    Assert.InRange(gap, 0, 2e-3 * Math.Abs(level.Step));
                }

                if (codes[j] == rounded[j]) sameAsRounding++;
                double error = (live[j] - level.Value(codes[j])) / inverse[(j * Width) + j];
                for (int i = j; i < Width; i++) live[i] -= error * inverse[(j * Width) + i];
            }
        }

        Assert.InRange(differing, 0, rowCount * Width / 200);
        Assert.InRange(sameAsRounding, 0, rowCount * Width * 9 / 10);
    }

    [Theory]
    [MemberData(nameof(Grids))]
    public void ErrorFallsOnEveryGridAndIsThatOfTheBytes(string name)
    {
        ElementType type = BlockData.Block(name);
        const int rowCount = 5;
        float[] weights = BlockData.Values(rowCount * Width);
        GramMatrix gram = Gram(Activations(300));
        int granule = GptqSolver.GranuleLength(type);
        GptqHessian hessian = new(name, gram, granule, new GptqOptions(), Team);
        byte[] encoded = new byte[type.ByteCount(weights.Length)], cut = new byte[encoded.Length];
        GptqErrors errors = new GptqSolver(hessian).Solve(new RowSlab(name, 0, Width, weights), type, Effort.Fast, encoded, Team);
        Assert.InRange(errors.RelativeAfter, 0, errors.RelativeBefore * 0.9);
        AssertNear(Loss(gram, hessian.Scale, weights, Decode(type, encoded)), errors.After);
        AssertNear(Loss(gram, hessian.Scale, weights, Decode(type, BlockData.Encode(type, weights, Width, hessian.Importance, Effort.Fast))), errors.Before);
        AssertNear(Loss(gram, hessian.Scale, weights, new float[weights.Length]), errors.Square);

        GptqHessian alone = new(name, gram, granule, new GptqOptions(), new WorkerTeam(1));
        GptqSolver solver = new(alone);
        int split = encoded.Length / rowCount * 3;
        solver.Encode(new RowSlab(name, 0, Width, weights.AsSpan(0, 3 * Width)), type, Effort.Fast, cut.AsSpan(0, split));
        solver.Encode(new RowSlab(name, 3, Width, weights.AsSpan(3 * Width)), type, Effort.Fast, cut.AsSpan(split));
        BlockData.AssertSameBytes(encoded, cut, name);
    }

    [Theory]
    [InlineData("Q4_K")]
    [InlineData("Q3_K")]
    [InlineData("IQ3_S")]
    public void OrderAndDescentLowerTheError(string name)
    {
        ElementType type = BlockData.Block(name);
        float[] weights = BlockData.Values(32 * Width), activations = Activations(700);
        GramMatrix gram = Gram(activations);
        double Run(bool order, int passes)
        {
            GptqHessian hessian = new(name, gram, GptqSolver.GranuleLength(type), new GptqOptions { ActivationOrder = order, DescentPasses = passes }, Team);
            return new GptqSolver(hessian).Solve(new RowSlab(name, 0, Width, weights), type, Effort.Fast, new byte[type.ByteCount(weights.Length)], Team).RelativeAfter;
        }

        double plain = Run(false, 0), ordered = Run(true, 0), descended = Run(true, 3);
        Assert.InRange(ordered, 0, plain);
        Assert.InRange(descended, 0, ordered * 0.999);
    }

    /// <summary>What coordinate descent over parameters rests on, for every grid: a stored value stores as itself, and values are linear in each parameter.</summary>
    [Theory]
    [MemberData(nameof(Grids))]
    public void ValuesAreLinearInParametersThatCanBeStored(string name)
    {
        BlockType type = BlockData.Block(name);
        IBlockCodec codec = type.Codec!;
        GridShape shape = codec.Shape;
        byte[] block = BlockData.Encode(type, BlockData.Values(shape.BlockLength), shape.BlockLength, [], Effort.Fast), codes = new byte[shape.BlockLength];
        float[] parameters = new float[shape.ParameterCount];
        codec.Unpack(block, codes, parameters);
        int adjustable = 0;
        for (int p = 0; p < parameters.Length; p++)
        {
            float old = parameters[p], stored = codec.Store(p, old);
            if (float.IsNaN(stored)) continue;
            adjustable++;
            Assert.Equal(old, stored);
            float near = codec.Store(p, (old * 1.3f) + 0.1f);
            Assert.Equal(near, codec.Store(p, near));
            (int first, int count) = codec.SubBlocksOf(p);
            for (int sub = 0; sub < shape.BlockLength / shape.SubBlockLength; sub++)
            {
                float At(float value)
                {
                    parameters[p] = value;
                    float result = codec.GetLevels(parameters, sub).Value(codes[sub * shape.SubBlockLength]);
                    parameters[p] = old;
                    return result;
                }

                (float zero, float one, float two) = (At(0), At(1), At(2));
                Assert.InRange((two - one) - (one - zero), -1e-4f * (1 + Math.Abs(two)), 1e-4f * (1 + Math.Abs(two)));
                if (sub < first || sub >= first + count) Assert.Equal(zero, two);
            }
        }

        Assert.Equal(name == "MXFP4", adjustable == 0);
    }

    [Theory]
    [InlineData("Q2_K")]
    [InlineData("Q4_K")]
    [InlineData("Q6_K")]
    [InlineData("Q4_0")]
    [InlineData("IQ4_XS")]
    [InlineData("IQ2_XXS")]
    [InlineData("IQ1_M")]
    public void RefittedParametersLowerTheError(string name)
    {
        ElementType type = BlockData.Block(name);
        float[] weights = BlockData.Values(40 * Width);
        GramMatrix gram = Gram(Activations(700));
        double Run(int refits)
        {
            using GptqHessian hessian = new(name, gram, GptqSolver.GranuleLength(type), new GptqOptions { Shrinkage = 0, RefitPasses = refits }, Team);
            return new GptqSolver(hessian).Solve(new RowSlab(name, 0, Width, weights), type, Effort.Fast, new byte[type.ByteCount(weights.Length)], Team).RelativeAfter;
        }

        Assert.InRange(Run(3), 0, Run(0) * 0.999);
    }

    [Theory]
    [InlineData("zero")]
    [InlineData("dead")]
    [InlineData("duplicated")]
    [InlineData("rank 1")]
    public void SingularHessiansGiveFiniteWeights(string kind)
    {
        float[] activations = Activations(kind == "rank 1" ? 1 : 64);
        for (int i = 0; i < activations.Length; i++)
        {
            if (kind == "zero" || (kind == "dead" && i % Width % 3 == 0)) activations[i] = 0;
            if (kind == "duplicated" && i % 2 == 1) activations[i] = activations[i - 1];
        }

        GramMatrix gram = Gram(activations);
        float[] weights = BlockData.Values(3 * Width);
        foreach (string name in new[] { "Q4_0", "Q4_K", "IQ2_XXS" })
        {
            ElementType type = BlockData.Block(name);
            foreach (double damping in new[] { 0, 0.01 })
            {
                GptqHessian hessian = new(name, gram, GptqSolver.GranuleLength(type), new GptqOptions { Damping = damping, Shrinkage = 0 }, Team);
                Assert.InRange(hessian.Damping, Math.Max(damping, 1e-6), 1);
                byte[] encoded = new byte[type.ByteCount(weights.Length)];
                GptqErrors errors = new GptqSolver(hessian).Solve(new RowSlab(name, 0, Width, weights), type, Effort.Fast, encoded, Team);
                Assert.InRange(errors.After, 0, errors.Before);
                Assert.All(Decode(type, encoded), value => Assert.True(float.IsFinite(value)));
                if (kind == "zero") BlockData.AssertSameBytes(BlockData.Encode(type, weights, Width, [], Effort.Fast), encoded, name);
            }
        }
    }

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.PositiveInfinity)]
    [InlineData(1e30f)]
    public void SumsThatAreNotFiniteAreRefused(float value)
    {
        float[] activations = Activations(64);
        activations[Width + 5] = value;
        QuantException error = Assert.Throws<QuantException>(() => new GptqHessian("model.layers.0.mlp.down_proj.weight", Gram(activations), 1, new GptqOptions(), Team));
        Assert.Equal(ErrorKind.Numeric, error.Kind);
        Assert.Contains("down_proj", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void OtherTypesAndWidthsAreRefused()
    {
        GptqSolver solver = new(new GptqHessian("w", Gram(Activations(8)), 1, new GptqOptions(), Team));
        Assert.False(solver.Supports(BlockData.Block("IQ3_S"), Effort.Fast));
        Assert.False(solver.Supports(GgmlTypes.All.Select(type => type.Element).First(type => type.Name == "F16"), Effort.Fast));
        Assert.Throws<NotSupportedException>(() => solver.Encode(new RowSlab("w", 0, Width, new float[Width]), BlockData.Block("IQ3_S"), Effort.Fast, new byte[220]));
        Assert.Throws<ArgumentException>(() => solver.Encode(new RowSlab("w", 0, 32, new float[32]), BlockData.Block("Q4_0"), Effort.Fast, new byte[18]));
    }

    /// <summary>Correlated channels of unequal power.</summary>
    private static float[] Activations(int rowCount)
    {
        Random random = new(5);
        float[] activations = new float[rowCount * Width];
        for (int row = 0; row < rowCount; row++)
        {
            double common = 0;
            for (int i = 0; i < Width; i++)
            {
                common = (0.8 * common) + random.NextDouble() - 0.5;
                activations[(row * Width) + i] = (float)(common * (1 + (i * 7 % 11)));
            }
        }

        return activations;
    }

    private static GramMatrix Gram(float[] activations)
    {
        GramMatrix gram = new(Width);
        gram.Add(activations, activations.Length / Width, Team);
        gram.Fold(Team);
        return gram;
    }

    private static float[] Decode(ElementType type, byte[] encoded)
    {
        float[] values = new float[encoded.Length / type.BytesPerBlock * type.ValuesPerBlock];
        type.Decode(encoded, values);
        return values;
    }

    private static (byte[] Codes, Levels[] Levels) Unpack(BlockType type, ReadOnlySpan<byte> row)
    {
        IBlockCodec codec = type.Codec!;
        GridShape shape = codec.Shape;
        byte[] codes = new byte[Width];
        List<Levels> levels = [];
        float[] parameters = new float[shape.ParameterCount];
        for (int block = 0; block < Width / shape.BlockLength; block++)
        {
            codec.Unpack(row.Slice(block * type.BytesPerBlock, type.BytesPerBlock), codes.AsSpan(block * shape.BlockLength, shape.BlockLength), parameters);
            for (int sub = 0; sub < shape.BlockLength / shape.SubBlockLength; sub++) levels.Add(codec.GetLevels(parameters, sub));
        }

        return (codes, [.. levels]);
    }

    private static void AssertNear(double expected, double actual) => Assert.InRange(actual, expected * 0.999, expected * 1.001);

    private static double Loss(GramMatrix gram, double scale, float[] weights, float[] decoded)
    {
        double loss = 0;
        for (int row = 0; row < weights.Length; row += Width)
        {
            for (int i = 0; i < Width; i++)
            {
                for (int j = 0; j < Width; j++) loss += (weights[row + i] - decoded[row + i]) * gram[i, j] * (weights[row + j] - (double)decoded[row + j]);
            }
        }

        return loss / scale;
    }

    /// <summary>The upper triangular U with <c>(H + damping)^-1 = U^T U</c>.</summary>
    private static double[] InverseFactor(GramMatrix gram, double damping)
    {
        double mean = Enumerable.Range(0, Width).Average(i => gram[i, i]);
        // Gauss-Jordan for the inverse, then its plain Cholesky factor.
        double[] matrix = new double[Width * Width], inverse = new double[Width * Width], upper = new double[Width * Width];
        for (int i = 0; i < Width * Width; i++) matrix[i] = gram[i / Width, i % Width] + (i / Width == i % Width ? damping * mean : 0);
        for (int i = 0; i < Width; i++) inverse[(i * Width) + i] = 1;
        for (int i = 0; i < Width; i++)
        {
            double pivot = 1 / matrix[(i * Width) + i];
            for (int j = 0; j < Width; j++) (matrix[(i * Width) + j], inverse[(i * Width) + j]) = (matrix[(i * Width) + j] * pivot, inverse[(i * Width) + j] * pivot);
            for (int other = 0; other < Width; other++)
            {
                double factor = matrix[(other * Width) + i];
                if (other == i) continue;
                for (int j = 0; j < Width; j++)
                {
                    matrix[(other * Width) + j] -= factor * matrix[(i * Width) + j];
                    inverse[(other * Width) + j] -= factor * inverse[(i * Width) + j];
                }
            }
        }

        for (int i = 0; i < Width; i++)
        {
            for (int j = i; j < Width; j++)
            {
                double sum = inverse[(i * Width) + j];
                for (int k = 0; k < i; k++) sum -= upper[(k * Width) + i] * upper[(k * Width) + j];
                upper[(i * Width) + j] = i == j ? Math.Sqrt(sum) : sum / upper[(i * Width) + i];
            }
        }

        return upper;
    }
}
