using Qwen2Quant.Core.Encoding;
using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Blocks;

namespace Qwen2Quant.Tests.Quantization;

public class RoundToNearestTests
{
    private const int RowLength = 512;

    public static TheoryData<string> WrittenTypes => [.. GgmlTypes.All.Where(type => type.Element.CanEncode).Select(type => type.Name)];

    /// <summary>The activation formats, the integers and the two newest types are read only.</summary>
    [Fact]
    public void Writes_every_type_that_presets_need() =>
        Assert.Equal(
            ["F64", "I16", "I32", "I64", "I8", "Q1_0", "Q2_0", "Q8_1", "Q8_K"],
            GgmlTypes.All.Where(type => !type.Element.CanEncode).Select(type => type.Name).Order(StringComparer.Ordinal));

    [Fact]
    public void The_catalogue_finds_every_solver_by_name()
    {
        Type[] written = [.. typeof(ISolver).Assembly.GetTypes().Where(type => type.IsAssignableTo(typeof(ISolver)) && !type.IsAbstract)];
        Assert.Equal(written.Select(type => type.Name).Order(), SolverCatalog.All.Select(solver => solver.GetType().Name).Order());
        Assert.All(SolverCatalog.All, solver => Assert.Same(solver, SolverCatalog.Find(solver.Name.ToUpperInvariant())));
        Assert.Null(SolverCatalog.Find("none"));
    }

    [Theory]
    [MemberData(nameof(WrittenTypes))]
    public void Reference_effort_writes_the_types_own_bytes_and_reports_their_error(string name)
    {
        ElementType type = GgmlTypes.Find(name)!.Element;
        float[] values = BlockData.Values(8 * RowLength);
        foreach (float[] importance in new[] { [], BlockData.Importance() })
        {
            byte[] encoded = new byte[type.ByteCount(values.Length)];
            ErrorSums errors = new();
            SolverCatalog.RoundToNearest.Encode(new RowSlab("w", 0, RowLength, values, importance), type, Effort.Reference, encoded, errors);
            Assert.Equal(BlockData.Encode(type, values, RowLength, importance), encoded);

            float[] decoded = new float[values.Length];
            type.Decode(encoded, decoded);
            double squaredError = values.Zip(decoded, (value, other) => Math.Pow((double)value - other, 2)).Sum();
            double squaredValue = values.Sum(value => (double)value * value);
            Assert.Equal(values.Length, errors.ValueCount);
            Assert.Equal(squaredError, errors.SquaredError, 1e-12 * squaredValue);
            Assert.Equal(squaredValue, errors.SquaredValue, 1e-12 * squaredValue);
            Assert.Equal(Math.Sqrt(squaredError / values.Length), errors.Rmse, 1e-9);
            Assert.Equal(Math.Sqrt(squaredError / squaredValue), errors.RelativeError, 1e-9);
        }
    }

    /// <summary>Root mean square errors that ggml reached on the same 4 rows.</summary>
    [Theory]
    [InlineData("F16", 7.39186e-06)]
    [InlineData("BF16", 5.82879e-05)]
    [InlineData("Q4_0", 0.00393822)]
    [InlineData("Q4_1", 0.00302036)]
    [InlineData("Q5_0", 0.00198429)]
    [InlineData("Q5_1", 0.00145873)]
    [InlineData("Q8_0", 0.000244008)]
    [InlineData("Q6_K", 0.000743592)]
    public void Errors_are_ggmls(string name, double rmse)
    {
        ElementType type = GgmlTypes.Find(name)!.Element;
        float[] values = BlockData.Values(2048);
        ErrorSums errors = new();
        SolverCatalog.RoundToNearest.Encode(new RowSlab("w", 0, RowLength, values), type, Effort.Reference, new byte[type.ByteCount(2048)], errors);
        Assert.Equal(rmse, errors.Rmse, rmse * 1e-5);
    }

    [Fact]
    public void Sums_do_not_depend_on_how_rows_are_cut_into_slabs()
    {
        ElementType type = GgmlTypes.Find("Q4_0")!.Element;
        float[] values = BlockData.Values(9 * 480);
        byte[] encoded = new byte[type.ByteCount(values.Length)];
        ErrorSums whole = new();
        SolverCatalog.RoundToNearest.Encode(new RowSlab("w", 0, 480, values), type, Effort.Reference, encoded, whole);
        ErrorSums parts = new();
        foreach ((int first, int count) in new[] { (0, 1), (1, 5), (6, 3) })
        {
            int rowBytes = (int)type.ByteCount(480);
            SolverCatalog.RoundToNearest.Encode(
                new RowSlab("w", first, 480, values.AsSpan(first * 480, count * 480)), type, Effort.Reference, encoded.AsSpan(first * rowBytes, count * rowBytes), parts);
        }

        Assert.Equal((whole.SquaredError, whole.SquaredValue), (parts.SquaredError, parts.SquaredValue));
        parts.Add(whole);
        Assert.Equal((2 * whole.SquaredError, 2 * whole.ValueCount), (parts.SquaredError, parts.ValueCount));
    }

    [Theory]
    [InlineData(float.NaN, "NU-79", "NaN")]
    [InlineData(float.PositiveInfinity, "NU-80", "Infinity")]
    [InlineData(float.NegativeInfinity, "NU-80", "-Infinity")]
    public void A_value_that_is_not_finite_is_refused_with_its_place(float value, string rule, string shown)
    {
        foreach (GgmlType type in GgmlTypes.All.Where(type => type.Element.CanEncode))
        {
            foreach (int at in new[] { 0, 511, 512, 700, 1535 })
            {
                float[] values = BlockData.Values(3 * RowLength);
                values[at] = value;
                QuantException error = Assert.Throws<QuantException>(() => SolverCatalog.RoundToNearest.Encode(
                    new RowSlab("blk.0.ffn_up.weight", 40, RowLength, values), type.Element, Effort.Reference, new byte[type.Element.ByteCount(values.Length)]));
                Assert.Equal((rule, ErrorKind.Numeric, "blk.0.ffn_up.weight"), (error.Rule!.Id, error.Kind, error.Tensor));
                Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"{shown} in row {40 + (at / RowLength)}, column {at % RowLength}"), error.Found);
            }
        }
    }

    [Theory]
    [InlineData("Q4_0", "NU-84")]
    [InlineData("Q4_1", "NU-84")]
    [InlineData("Q5_0", "NU-84")]
    [InlineData("Q5_1", "NU-84")]
    [InlineData("Q8_0", "NU-84")]
    [InlineData("Q6_K", "NU-84")]
    [InlineData("F16", "NU-82")]
    [InlineData("BF16", "NU-82")]
    public void A_value_beyond_the_types_range_is_refused_and_the_largest_within_is_not(string name, string rule)
    {
        ElementType type = GgmlTypes.Find(name)!.Element;
        float[] values = BlockData.Values(RowLength);
        byte[] encoded = new byte[type.ByteCount(RowLength)];
        foreach (float sign in new[] { 1f, -1f })
        {
            values[300] = sign * type.LargestMagnitude;
            values[301] = -values[300];
            foreach (float[] importance in new[] { [], BlockData.Importance(), [.. Enumerable.Range(0, RowLength).Select(i => i % 3 == 0 ? 0f : 1f)] })
            {
                SolverCatalog.RoundToNearest.Encode(new RowSlab("w", 0, RowLength, values, importance), type, Effort.Reference, encoded);
                float[] decoded = new float[RowLength];
                type.Decode(encoded, decoded);
                Assert.Equal(-1, FiniteCheck.FindNonFinite(decoded));
            }

            values[300] = sign * MathF.BitIncrement(type.LargestMagnitude);
            QuantException error = Assert.Throws<QuantException>(() => SolverCatalog.RoundToNearest.Encode(new RowSlab("w", 7, RowLength, values), type, Effort.Reference, encoded));
            Assert.Equal(rule, error.Rule!.Id);
            Assert.Contains("in row 7, column 300", error.Found, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Other_types_and_lengths_are_refused()
    {
        ISolver solver = SolverCatalog.RoundToNearest;
        ElementType q4 = GgmlTypes.Find("Q4_0")!.Element;
        ElementType q8 = GgmlTypes.Find("Q8_K")!.Element;
        float[] values = new float[256];
        Assert.Throws<NotSupportedException>(() => solver.Encode(new RowSlab("w", 0, 256, values), q8, Effort.Reference, new byte[292]));
        Assert.Throws<ArgumentException>(() => solver.Encode(new RowSlab("w", 0, 256, values), q4, Effort.Reference, new byte[143]));
        Assert.Throws<ArgumentException>(() => new RowSlab("w", 0, 100, values));
        Assert.Throws<ArgumentException>(() => new RowSlab("w", 0, 128, values, new float[127]));
    }
}
