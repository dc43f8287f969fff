using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Formats.Packed.Float;
using Qwen2Quant.Formats.Packed.Mlx;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Blocks;

namespace Qwen2Quant.Tests.Packed;

/// <summary>The grids of packed checkpoints beside the integers of GPTQ.</summary>
public class PackedGridTests
{
    private const int Width = 512, RowCount = 24;

    public static TheoryData<int, int, bool> AffineGrids
    {
        get
        {
            TheoryData<int, int, bool> data = [];
            foreach (int bits in new[] { 2, 3, 4, 5, 6, 8 })
            {
                data.Add(bits, 32, true);
                data.Add(bits, 64, false);
                data.Add(bits, 128, true);
            }

            return data;
        }
    }

    public static TheoryData<string> Solvable => ["fp8", "nvfp4", "mlx4", "mlx2", "int8 rows", "int4 bf16"];

    [Theory]
    [MemberData(nameof(AffineGrids))]
    public void EveryWidthEncodesAndDecodesAlike(int bits, int group, bool hasHalves)
    {
        AffineGridType type = AffineGridType.Of(bits, group, hasHalves ? PlainTypes.F16 : PlainTypes.BF16);
        // From no group to two strides of lanes and one.
        for (int groups = 0; groups <= 33; groups += groups < 3 ? 1 : 15)
        {
            float[] values = BlockData.Values(Math.Max(groups * group, 1))[..(groups * group)], importance = [.. values.Select(value => 0.1f + (value * value))];
            foreach (Effort effort in Enum.GetValues<Effort>())
            {
                byte[]? expected = null;
                foreach (SimdLevel level in Enum.GetValues<SimdLevel>().Where(level => level <= Simd.Level))
                {
                    byte[] bytes = new byte[type.ByteCount(values.Length)];
                    type.EncodeRow(level, values, effort == Effort.Fast ? [] : importance, effort, bytes);
                    Assert.Equal(expected ??= bytes, bytes);
                    float[] decoded = new float[values.Length], scalar = new float[values.Length];
                    type.Decode(level, bytes, decoded);
                    type.Decode(SimdLevel.Scalar, bytes, scalar);
                    Assert.Equal(scalar, decoded);
                }
            }
        }
    }

    [Fact]
    public void EveryWidthFitsNarrowFloatsAlike()
    {
        for (int groups = 0; groups <= 33; groups += groups < 3 ? 1 : 15)
        {
            float[] values = BlockData.Values(Math.Max(groups * 16, 1))[..(groups * 16)], importance = [.. values.Select(value => 0.1f + (value * value))];
            Nvfp4Type type = Nvfp4Type.Of(448 * 6 / Math.Max(values.Select(MathF.Abs).DefaultIfEmpty(1).Max(), 1e-6f));
            double before = double.MaxValue;
            foreach (Effort effort in Enum.GetValues<Effort>())
            {
                byte[]? expected = null;
                foreach (SimdLevel level in Enum.GetValues<SimdLevel>().Where(level => level <= Simd.Level))
                {
                    byte[] bytes = new byte[type.ByteCount(values.Length)];
                    type.EncodeRow(level, values, importance, effort, bytes);
                    Assert.Equal(expected ??= bytes, bytes);
                }

                float[] decoded = new float[values.Length];
                type.Decode(expected, decoded);
                double error = values.Select((value, i) => importance[i] * Math.Pow(value - decoded[i], 2)).Sum();
                Assert.True(error <= before * 1.0001, $"{effort}: {error} above {before}");
                before = error;
            }
        }
    }

    /// <summary>Row by row, whatever the columns weigh, and the more effort the less.</summary>
    [Theory]
    [MemberData(nameof(AffineGrids))]
    public void SearchesLoseNoMoreThanMlx(int bits, int group, bool hasHalves)
    {
        AffineGridType type = AffineGridType.Of(bits, group, hasHalves ? PlainTypes.F16 : PlainTypes.BF16);
        float[] values = BlockData.Values(RowCount * Width), importance = [.. BlockData.Values(Width).Select(value => value * value)];
        foreach (float[] weights in new[] { [], importance })
        {
            double[][] errors = [.. Enum.GetValues<Effort>().Select(effort => RowErrors(type, values, weights, effort))];
            for (int row = 0; row < RowCount; row++) Assert.All(errors[1..], searched => Assert.InRange(searched[row], 0, errors[0][row] * 1.000001));
            (double reference, double fast, double normal, double high) = (errors[0].Sum(), errors[1].Sum(), errors[2].Sum(), errors[3].Sum());
            Assert.True(normal <= fast * 1.001 && high <= normal * 1.001, $"{reference} {fast} {normal} {high}");
            Assert.InRange(normal / reference, 0, bits switch { <= 3 => 0.75, 4 => 0.85, _ => 0.95 });
        }
    }

    /// <summary>The formula of quant-formats 4.2 in plain scalar steps, also for groups that are constant, zero, or far from zero.</summary>
    [Theory]
    [MemberData(nameof(AffineGrids))]
    public void TheReferenceIsMlxsFormula(int bits, int group, bool hasHalves)
    {
        AffineGridType type = AffineGridType.Of(bits, group, hasHalves ? PlainTypes.F16 : PlainTypes.BF16);
        float[] noise = BlockData.Values(group);
        foreach (float[] values in new float[][] { noise, [.. noise.Select(value => 3 - value)], [.. noise.Select(MathF.Abs)], new float[group], [.. Enumerable.Repeat(3.7f, group)], [.. Enumerable.Repeat(-3.7f, group)], [.. noise.Select((_, i) => 9 + (i * 1e-6f))] })
        {
            int largest = (1 << bits) - 1;
            (float low, float high) = (values.Min(), values.Max());
            bool isLow = MathF.Abs(low) > MathF.Abs(high);
            float scale = MathF.Max((high - low) / largest, 1e-7f) * (isLow ? 1 : -1), edge = isLow ? low : high, bias = 0;
            float code = MathF.Round(edge / scale);
            if (code != 0) (scale, bias) = (edge / code, edge);
            byte[] block = new byte[type.BytesPerBlock], codes = new byte[group], expected = [.. values.Select(value => (byte)Math.Clamp(MathF.Round((value - bias) / scale), 0, largest))];
            float[] parameters = new float[2];
            type.EncodeRow(values, default, Effort.Reference, block);
            type.Unpack(block, codes, parameters);
            Assert.Equal(expected, codes);
            Assert.Equal([Stored(scale), Stored(bias)], parameters);
        }

        float Stored(float value) => hasHalves ? (float)(Half)value : BitConverter.UInt32BitsToSingle((uint)BFloat16Rows.Narrow(value) << 16);
    }

    /// <summary>What a solver rounds on is what the decoder gives, and what the forward pass multiplies.</summary>
    [Theory]
    [MemberData(nameof(AffineGrids))]
    public unsafe void LevelsAndIntegersAreTheDecodedValues(int bits, int group, bool hasHalves)
    {
        AffineGridType type = AffineGridType.Of(bits, group, hasHalves ? PlainTypes.F16 : PlainTypes.BF16);
        float[] values = BlockData.Values(Width), decoded = new float[Width], parameters = new float[2];
        byte[] blocks = new byte[type.ByteCount(Width)], codes = new byte[group];
        type.EncodeRow(values, default, Effort.Reference, blocks);
        type.Decode(blocks, decoded);
        bool anyNegative = false;
        for (int block = 0; block < Width / group; block++)
        {
            byte[] stored = blocks[(block * type.BytesPerBlock)..((block + 1) * type.BytesPerBlock)], packed = new byte[stored.Length];
            type.Unpack(stored, codes, parameters);
            type.Pack(codes, parameters, packed);
            Assert.Equal(stored, packed);
            Levels levels = type.GetLevels(parameters, 0);
            anyNegative |= levels.Step < 0;
            for (int i = 0; i < group; i++)
            {
                Assert.Equal(levels.Value(codes[i]), decoded[(block * group) + i]);
                Assert.Equal(codes[i], levels.Nearest(decoded[(block * group) + i]));
            }

            for (int parameter = 0; parameter < 2; parameter++) Assert.Equal(parameters[parameter], type.Store(parameter, parameters[parameter]));
        }

        Assert.True(anyNegative);
        short[] integers = new short[Width];
        float[] scales = new float[Width / 32], origins = new float[scales.Length];
        fixed (byte* from = blocks)
        fixed (short* to = integers)
        fixed (float* toScales = scales, toOrigins = origins) type.Integers!.Unpack(from, Width, to, toScales, toOrigins, 1);
        for (int i = 0; i < Width; i++) Assert.Equal(decoded[i], (scales[i / 32] * integers[i]) + origins[i / 32]);
    }

    [Theory]
    [MemberData(nameof(Solvable))]
    public void GptqMakesUpForErrors(string name)
    {
        ElementType type = name switch
        {
            "fp8" => Fp8Type.Of(Width, PlainTypes.BF16),
            "nvfp4" => Nvfp4Type.Of(448 * 6 / BlockData.Values(RowCount * Width).Max(MathF.Abs)),
            "mlx4" => AffineGridType.Of(4, 64, PlainTypes.BF16),
            "mlx2" => AffineGridType.Of(2, 64, PlainTypes.F16),
            "int8 rows" => IntegerGridType.Of(8, Width, true, PlainTypes.BF16),
            _ => IntegerGridType.Of(4, 128, false, PlainTypes.BF16),
        };
        WorkerTeam team = new(2);
        float[] weights = BlockData.Values(RowCount * Width);
        GramMatrix gram = new(Width);
        Random random = new(11);
        float[] inputs = new float[900 * Width];
        float shared = 0;
        for (int i = 0; i < inputs.Length; i++) inputs[i] = shared = (0.7f * shared) + (float)(random.NextDouble() - 0.5);
        gram.Add(inputs, 900, team);
        gram.Fold(team);
        using GptqHessian hessian = new(name, gram, 1, new GptqOptions(), team);
        byte[] encoded = new byte[type.ByteCount(weights.Length)];
        GptqErrors errors = new GptqSolver(hessian).Solve(new RowSlab(name, 0, Width, weights), type, Effort.Fast, encoded, team);
        Assert.InRange(errors.After / errors.Before, 0, 0.8);
        float[] decoded = new float[weights.Length];
        type.Decode(encoded, decoded);
        Assert.All(decoded, value => Assert.True(float.IsFinite(value)));
        Assert.InRange(Math.Sqrt(weights.Zip(decoded, (a, b) => Math.Pow(a - b, 2)).Sum() / weights.Sum(value => Math.Pow(value, 2))), 0, name == "mlx2" ? 0.9 : 0.2);
    }

    /// <summary>A group's scale may be up to 7/4 of that which puts its largest magnitude on the largest code: steps are finest in the middle of E2M1.</summary>
    [Fact]
    public void Nvfp4LosesLessThanUnderTheScaleOfTheLargestMagnitude()
    {
        float[] values = BlockData.Values(RowCount * Width);
        Nvfp4Type type = Nvfp4Type.Of(2688 / values.Max(MathF.Abs));
        double[] errors = [.. Enum.GetValues<Effort>().Select(effort => RowErrors(type, values, [], effort).Sum())];
        (double reference, double fast, double normal, double high) = (errors[(int)Effort.Reference], errors[(int)Effort.Fast], errors[(int)Effort.Normal], errors[(int)Effort.High]);
        Assert.True(fast < 0.78 * reference && normal <= fast && high <= normal, $"{reference} {fast} {normal} {high}");
    }

    /// <summary>OCP OFP8, and quant-formats 11.3.</summary>
    [Fact]
    public void NarrowFloatsAreTheNearest()
    {
        Assert.Equal((0x7E, 0x01, 0xB8), (Float8.ToE4M3(448), Float8.ToE4M3(0.001953125f), Float8.ToE4M3(-1)));
        Assert.Equal(0x7E, Float8.ToE4M3(1e9f));
        float[] finite = [.. Enumerable.Range(0, 0x7F).Select(code => Float8.FromE4M3((byte)code))];
        Random random = new(5);
        for (int i = 0; i < 20000; i++)
        {
            float value = MathF.ScaleB(1 + (float)random.NextDouble(), random.Next(-12, 9)) * (random.Next(2) == 0 ? 1 : -1);
            byte code = Float8.ToE4M3(value);
            float nearest = finite.MinBy(candidate => MathF.Abs(candidate - MathF.Abs(value)));
            Assert.Equal(MathF.Abs(nearest - MathF.Abs(value)), MathF.Abs(Float8.FromE4M3((byte)(code & 0x7F)) - MathF.Abs(value)));
            Assert.Equal(value < 0, code >= 0x80);
        }

        // Halfway between two codes: the even one.
        for (int code = 0; code < 0x7D; code++) Assert.Equal(code + (code % 2), Float8.ToE4M3((finite[code] + finite[code + 1]) / 2));
        Nvfp4Type type = Nvfp4Type.Of(448);
        float[] row = [0.5f, -6, 0, 1, .. new float[12]];
        byte[] block = new byte[type.BytesPerBlock];
        type.EncodeRow(row, default, Effort.Reference, block);
        Assert.Equal(0x7E, block[0]);
        Assert.Equal(0xF1, block[1]);
        float[] decoded = new float[16];
        type.Decode(block, decoded);
        Assert.Equal(row, decoded);
    }

    [Fact]
    public void FieldsAreOneStreamOfBits()
    {
        Assert.Equal([0x88, 0xC6, 0xFA], Packed([0, 1, 2, 3, 4, 5, 6, 7], 3));
        Assert.Equal([0x41, 0x0C, 0x52, 0xCC, 0x41], Packed([1, 2, 3, 4, 5, 6, 7, 8], 5));
        Assert.Equal([0x81, 0x30, 0x10, 0, 0, 0], Packed([1, 2, 3, 4, 0, 0, 0, 0], 6));

        static byte[] Packed(byte[] fields, int bits)
        {
            byte[] bytes = new byte[bits], back = new byte[8];
            BitFields.Pack(fields, bits, bytes);
            BitFields.Unpack(bytes, bits, back);
            Assert.Equal(fields, back);
            return bytes;
        }
    }

    [Fact]
    public void AwqWordsInterleaveOutputs()
    {
        Assert.Equal(0x75316420u, AwqWords.FromNatural(0x76543210));
        Random random = new(3);
        for (int i = 0; i < 1000; i++)
        {
            uint word = (uint)random.NextInt64(1L << 32);
            Assert.Equal(word, AwqWords.ToNatural(AwqWords.FromNatural(word)));
        }
    }

    /// <summary>The weighted squared error of each row of <see cref="Width"/> values.</summary>
    private static double[] RowErrors(ElementType type, float[] values, float[] importance, Effort effort)
    {
        double[] errors = new double[values.Length / Width];
        byte[] bytes = new byte[type.ByteCount(Width)];
        float[] decoded = new float[Width];
        for (int row = 0; row < errors.Length; row++)
        {
            ReadOnlySpan<float> own = values.AsSpan(row * Width, Width);
            type.EncodeRow(own, importance, effort, bytes);
            type.Decode(bytes, decoded);
            for (int i = 0; i < Width; i++) errors[row] += (importance.Length == 0 ? 1 : importance[i]) * Math.Pow(own[i] - decoded[i], 2);
        }

        return errors;
    }
}
