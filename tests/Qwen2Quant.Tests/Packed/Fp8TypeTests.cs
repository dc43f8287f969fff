using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Formats.Packed.Float;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Blocks;

namespace Qwen2Quant.Tests.Packed;

/// <summary>E4M3 under scales of rows, groups and tiles.</summary>
public class Fp8TypeTests
{
    private const int Width = 480;

    /// <summary>Values of a run, how scales are stored, and rows of a tile.</summary>
    public static TheoryData<int, string, int> Shapes => new()
    {
        { Width, "BF16", 1 }, { Width, "F16", 1 }, { Width, "F32", 1 }, { 32, "U8", 1 }, { 120, "F16", 1 }, { 8, "F32", 1 }, { 96, "BF16", 8 }, { 240, "F32", 5 },
    };

    [Fact]
    public void EveryCodeIsItsValueAtEveryWidth()
    {
        AtWidth<Lanes1>();
        AtWidth<Lanes128>();
        if (Simd.Level >= SimdLevel.Avx2) AtWidth<Lanes256>();
        if (Simd.Level >= SimdLevel.Avx512) AtWidth<Lanes512>();

        static void AtWidth<T>() where T : unmanaged, ILanes<T>
        {
            byte[] codes = [.. Enumerable.Range(0, 256).Select(code => (byte)code)], back = new byte[256];
            float[] values = new float[256], places = new float[256], entries = new float[256];
            for (int i = 0; i < codes.Length; i += T.Width)
            {
                T value = Float8.FromE4M3(T.LoadBytes(in codes[i])), place = Float8.PlacesE4M3(value);
                T.Store(value, ref values[i]);
                T.StoreBytes(Float8.ToE4M3(value), ref back[i]);
                T.Store(place, ref places[i]);
                T.Store(Float8.AtPlacesE4M3(place), ref entries[i]);
            }

            foreach (byte code in codes)
            {
                Assert.Equal(Float8.FromE4M3(code), values[code]);
                if (float.IsNaN(values[code])) continue;
                Assert.Equal(code, back[code]);
                // Minus zero counts as zero.
                Assert.Equal(code == 0x80 ? 127 : Float8.PlaceOf(code), places[code]);
                Assert.Equal(values[code], entries[code]);
                Assert.Equal(code, Float8.CodeAt(Float8.PlaceOf(code)));
                Assert.Equal(values[code], Float8.LevelsE4M3[Float8.PlaceOf(code)]);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void EveryWidthEncodesAndDecodesAlike(int group, string scales, int tileRows)
    {
        Fp8Type type = Fp8Type.Of(group, Scale(scales), tileRows);
        Assert.Same(type, Fp8Type.Of(group, Scale(scales), tileRows));
        float[] rows = Rows(12), importance = [.. rows.Take(Width).Select(value => 0.1f + (value * value))];
        foreach (Effort effort in Enum.GetValues<Effort>())
        {
            byte[]? expected = null;
            foreach (SimdLevel level in Simd.Available)
            {
                byte[] blocks = new byte[type.ByteCount(rows.Length)];
                type.EncodeRows(level, rows, Width, effort == Effort.Fast ? [] : importance, effort, blocks);
                Assert.Equal(expected ??= blocks, blocks);
                float[] decoded = new float[rows.Length], scalar = new float[rows.Length];
                type.Decode(level, blocks, decoded);
                type.Decode(SimdLevel.Scalar, blocks, scalar);
                Assert.Equal(scalar, decoded);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void DecodedValuesAreTheNearestLevels(int group, string scales, int tileRows)
    {
        Fp8Type type = Fp8Type.Of(group, Scale(scales), tileRows);
        float[] rows = Rows(2 * tileRows), decoded = new float[rows.Length], parameters = new float[1];
        byte[] blocks = new byte[type.ByteCount(rows.Length)], codes = new byte[group];
        type.EncodeRows(rows, Width, [], Effort.Normal, blocks);
        type.Decode(blocks, decoded);
        for (int block = 0; block < rows.Length / group; block++)
        {
            byte[] stored = blocks[(block * type.BytesPerBlock)..((block + 1) * type.BytesPerBlock)], packed = new byte[stored.Length];
            type.Unpack(stored, codes, parameters);
            type.Pack(codes, parameters, packed);
            Assert.Equal(stored, packed);
            Levels levels = type.GetLevels(parameters, 0);
            for (int i = 0; i < group; i++)
            {
                float value = rows[(block * group) + i];
                Assert.Equal(BitConverter.SingleToInt32Bits(levels.Value(codes[i])), BitConverter.SingleToInt32Bits(decoded[(block * group) + i]));
                Assert.Equal(MathF.Abs(levels.Value(levels.Nearest(value)) - value), MathF.Abs(decoded[(block * group) + i] - value), 1e-6f);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void MoreEffortLosesLessThanTheLargestMagnitudesScale(int group, string scales, int tileRows)
    {
        Fp8Type type = Fp8Type.Of(group, Scale(scales), tileRows);
        float[] rows = Rows(40);
        double[] errors = [.. Enum.GetValues<Effort>().Select(effort => Error(type, rows, effort))];
        Assert.True(errors[1] <= errors[0] && errors[2] <= errors[1] * 1.01 && errors[3] <= errors[2], string.Join(", ", errors));
        Assert.InRange(errors[2] / errors[0], 0, scales == "U8" ? 1 : 0.98);
    }

    /// <summary>Every row of a tile has the tile's scale, and a file holds it once; the last tile may have fewer rows.</summary>
    [Fact]
    public void TilesHaveOneScaleInMemoryAndInFiles()
    {
        const int tileRows = 8, group = 96, rowCount = 24;
        Fp8Type type = Fp8Type.Of(group, PlainTypes.BF16, tileRows);
        Shape shape = new(rowCount, Width);
        CtLayout layout = new(isBytes: false, ".weight_scale_inv");
        Assert.True(layout.Fits(type, shape));
        Assert.False(layout.Fits(type, new Shape(rowCount - 1, Width)));
        float[] rows = Rows(rowCount);
        byte[] blocks = new byte[type.ByteCount(rows.Length)];
        type.EncodeRows(rows, Width, [], Effort.Normal, blocks);
        OutputTensor[] parts = [.. layout.Parts("m.weight", type, shape)];
        Assert.Equal(["m.weight F8_E4M3 [24, 480]", "m.weight_scale_inv BF16 [3, 5]"], parts.Select(part => $"{part.Name} {part.Type} {part.Shape}"));
        MemoryWriteFile[] files = [.. parts.Select(part => new MemoryWriteFile((int)part.ByteLength))];
        IScatteredTarget target = layout.Target(type, shape, [.. parts.Select((part, i) => (i, new PlannedTensor(part, 0)))]);
        Assert.Equal(tileRows, target.RowGranule);
        int half = blocks.Length / 3;
        target.Write(files, tileRows, blocks.AsSpan(half), []);
        target.Write(files, 0, blocks.AsSpan(0, half), []);
        MemoryModules source = new MemoryModules().With("m.weight", parts[0].Type, 24, 480).With("m.weight_scale_inv", parts[1].Type, 3, 5);
        source.Fill("m.weight", i => files[0].Bytes[i]);
        source.Fill("m.weight_scale_inv", i => files[1].Bytes[i]);
        PackedMatrix matrix = new Fp8Matrix("m", type, shape, source.Find("m.weight")!, source.Find("m.weight_scale_inv")!);
        byte[] read = new byte[blocks.Length];
        for (int row = 0; row < rowCount; row += 5)
        {
            int count = Math.Min(5, rowCount - row), rowBytes = blocks.Length / rowCount;
            matrix.ReadRows(source, row, count, read.AsSpan(row * rowBytes, count * rowBytes));
        }

        Assert.Equal(blocks, read);
    }

    /// <summary>Scales that rows share stay what they are, whichever threads solve which rows.</summary>
    [Theory]
    [InlineData(Width, 1, 0.9)]
    [InlineData(96, 32, 0.9)]
    [InlineData(96, 112, 0.9)]
    public void GptqMakesUpForErrorsUnderTheScalesOfTiles(int group, int tileRows, double atMost)
    {
        const int rowCount = 224;
        Fp8Type type = Fp8Type.Of(group, PlainTypes.BF16, tileRows);
        float[] rows = Rows(rowCount), inputs = new float[900 * Width];
        Random random = new(11);
        float shared = 0;
        for (int i = 0; i < inputs.Length; i++) inputs[i] = shared = (0.7f * shared) + (float)(random.NextDouble() - 0.5);
        WorkerTeam team = new(2);
        GramMatrix gram = new(Width);
        gram.Add(inputs, 900, team);
        gram.Fold(team);
        using GptqHessian hessian = new("test", gram, 1, new GptqOptions(), team);
        byte[] encoded = new byte[type.ByteCount(rows.Length)], alone = new byte[encoded.Length];
        GptqErrors errors = new GptqSolver(hessian).Solve(new RowSlab("test", 0, Width, rows), type, Effort.Fast, encoded, team);
        Assert.InRange(errors.After / errors.Before, 0, atMost);
        new GptqSolver(hessian).Solve(new RowSlab("test", 0, Width, rows), type, Effort.Fast, alone, new WorkerTeam(1));
        Assert.Equal(alone, encoded);
        int perRow = Width / group;
        for (int block = 0; tileRows > 1 && block < rowCount * perRow; block++)
        {
            int first = (block / perRow / tileRows * tileRows * perRow) + (block % perRow);
            Assert.Equal(encoded.AsSpan(first * type.BytesPerBlock, 2), encoded.AsSpan(block * type.BytesPerBlock, 2));
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void ZerosAndExtremesStayFinite(int group, string scales, int tileRows)
    {
        Fp8Type type = Fp8Type.Of(group, Scale(scales), tileRows);
        foreach (float value in new[] { 0f, -0f, 1e-38f, type.LargestMagnitude, -type.LargestMagnitude })
        {
            float[] rows = [.. Enumerable.Range(0, tileRows * Width).Select(i => i % 7 == 0 ? value : value / 3)], decoded = new float[rows.Length], parameters = new float[1];
            byte[] blocks = new byte[type.ByteCount(rows.Length)];
            foreach (Effort effort in Enum.GetValues<Effort>())
            {
                type.EncodeRows(rows, Width, [], effort, blocks);
                type.Decode(blocks, decoded);
                for (int i = 0; i < rows.Length; i++) Assert.InRange(decoded[i], rows[i] - (MathF.Abs(rows[i]) * 0.07f) - 1e-8f, rows[i] + (MathF.Abs(rows[i]) * 0.07f) + 1e-8f);
                type.Unpack(blocks.AsSpan(0, type.BytesPerBlock), new byte[group], parameters);
                Assert.True(parameters[0] > 0);
            }
        }
    }

    /// <summary>Microscaling's powers of two: the least under which nothing is cut off.</summary>
    [Theory]
    [InlineData(448f, 127)]
    [InlineData(449f, 128)]
    [InlineData(1f, 119)]
    [InlineData(0.0009765625f, 109)]
    public void PowersOfTwoAreExponents(float peak, byte exponent)
    {
        Fp8Type type = Fp8Type.Of(32, PlainTypes.U8);
        float[] row = new float[32];
        row[3] = -peak;
        byte[] block = new byte[type.BytesPerBlock];
        type.EncodeRow(row, [], Effort.Reference, block);
        Assert.Equal(exponent, block[0]);
    }

    private static float[] Rows(int count) => BlockData.Values(count * Width);

    private static ElementType Scale(string name) => name switch { "BF16" => PlainTypes.BF16, "F16" => PlainTypes.F16, "U8" => PlainTypes.U8, _ => PlainTypes.F32 };

    private static double Error(Fp8Type type, float[] rows, Effort effort)
    {
        byte[] blocks = new byte[type.ByteCount(rows.Length)];
        float[] decoded = new float[rows.Length];
        type.EncodeRows(rows, Width, [], effort, blocks);
        type.Decode(blocks, decoded);
        return rows.Zip(decoded, (a, b) => Math.Pow(a - b, 2)).Sum();
    }
}
