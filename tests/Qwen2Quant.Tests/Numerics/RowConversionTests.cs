using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Tests.Numerics;

public class RowConversionTests
{
    /// <summary>Every half widens as .NET's own conversion does, at every width.</summary>
    [Fact]
    public void Every_half_widens_exactly()
    {
        ushort[] halves = [.. Enumerable.Range(0, 65536).Select(bits => (ushort)bits)];
        foreach (SimdLevel level in Simd.Available)
        {
            float[] values = new float[65536];
            HalfRows.Widen(level, halves, values);
            for (int i = 0; i < 65536; i++) AssertSame((float)BitConverter.UInt16BitsToHalf((ushort)i), values[i], $"{level} {i:x4}");
        }
    }

    /// <summary>Around every half: the floats at, just beside, and half way to the next one.</summary>
    [Fact]
    public void Floats_narrow_to_the_nearest_half()
    {
        List<float> inputs = [0, -0f, float.Epsilon, 1e-10f, 65504, 65519.996f, 65520, 65536, 1e30f, float.MaxValue, float.PositiveInfinity, float.NaN, -float.NaN];
        for (int bits = 0; bits < 0x7c00; bits++)
        {
            float value = (float)BitConverter.UInt16BitsToHalf((ushort)bits);
            float next = bits == 0x7bff ? 65536 : (float)BitConverter.UInt16BitsToHalf((ushort)(bits + 1));
            float middle = (value + next) / 2;
            inputs.AddRange([value, -value, middle, -middle, MathF.BitIncrement(middle), MathF.BitDecrement(middle), MathF.BitIncrement(value)]);
        }

        float[] source = [.. inputs];
        foreach (SimdLevel level in Simd.Available)
        {
            ushort[] halves = new ushort[source.Length];
            HalfRows.Narrow(level, source, halves);
            for (int i = 0; i < source.Length; i++)
            {
                Half expected = (Half)source[i];
                if (Half.IsNaN(expected)) Assert.True(Half.IsNaN(BitConverter.UInt16BitsToHalf(halves[i])));
                else Assert.Equal(BitConverter.HalfToUInt16Bits(expected), halves[i]);
            }
        }
    }

    [Theory]
    [InlineData(0x3f800000u, 0x3f80)]
    [InlineData(0x3f808000u, 0x3f80)]
    [InlineData(0x3f818000u, 0x3f82)]
    [InlineData(0x3f808001u, 0x3f81)]
    [InlineData(0x80000001u, 0x8000)]
    [InlineData(0x00008001u, 0x0001)]
    [InlineData(0x7f7fffffu, 0x7f80)]
    [InlineData(0x7f800000u, 0x7f80)]
    [InlineData(0xff800000u, 0xff80)]
    [InlineData(0x7f800001u, 0x7fc0)]
    [InlineData(0xffc12345u, 0xffc1)]
    public void Bfloat16_rounds_to_nearest_even_and_keeps_nan(uint bits, ushort expected)
    {
        float value = BitConverter.UInt32BitsToSingle(bits);
        Assert.Equal(expected, BFloat16Rows.Narrow(value));
        foreach (SimdLevel level in Simd.Available)
        {
            ushort[] narrow = new ushort[21];
            float[] source = new float[21];
            source.AsSpan().Fill(value);
            BFloat16Rows.Narrow(level, source, narrow);
            Assert.All(narrow, found => Assert.Equal(expected, found));
        }
    }

    [Fact]
    public void Every_bfloat16_comes_back_from_a_float()
    {
        ushort[] all = [.. Enumerable.Range(0, 65536).Select(bits => (ushort)bits)];
        foreach (SimdLevel level in Simd.Available)
        {
            float[] values = new float[65536];
            BFloat16Rows.Widen(level, all, values);
            for (int i = 0; i < 65536; i++) Assert.Equal((uint)i << 16, BitConverter.SingleToUInt32Bits(values[i]));
            ushort[] back = new ushort[65536];
            BFloat16Rows.Narrow(level, values, back);
            for (int i = 0; i < 65536; i++) Assert.Equal(float.IsNaN(values[i]) ? i | 0x40 : i, back[i]);
        }
    }

    [Fact]
    public void Widths_agree_on_every_length_and_touch_nothing_beyond()
    {
        Random random = new(3);
        for (int length = 0; length <= 129; length++)
        {
            float[] values = [.. Enumerable.Range(0, length).Select(_ => BitConverter.Int32BitsToSingle(random.Next(int.MinValue, int.MaxValue)))];
            ushort[] bits = [.. Enumerable.Range(0, length).Select(_ => (ushort)random.Next(65536))];
            foreach (SimdLevel level in Simd.Available)
            {
                AssertEqual(Narrow(SimdLevel.Scalar, HalfRows.Narrow), Narrow(level, HalfRows.Narrow));
                AssertEqual(Narrow(SimdLevel.Scalar, BFloat16Rows.Narrow), Narrow(level, BFloat16Rows.Narrow));
                AssertEqual(Widen(SimdLevel.Scalar, HalfRows.Widen), Widen(level, HalfRows.Widen));
                AssertEqual(Widen(SimdLevel.Scalar, BFloat16Rows.Widen), Widen(level, BFloat16Rows.Widen));
            }

            ushort[] Narrow(SimdLevel level, NarrowRow narrow)
            {
                ushort[] destination = new ushort[length + 3];
                destination.AsSpan().Fill(0xabcd);
                narrow(level, values, destination);
                Assert.Equal([0xabcd, 0xabcd, 0xabcd], destination[length..]);
                return destination;
            }

            float[] Widen(SimdLevel level, WidenRow widen)
            {
                float[] destination = new float[length + 3];
                destination.AsSpan().Fill(5);
                widen(level, bits, destination);
                Assert.Equal([5, 5, 5], destination[length..]);
                return destination;
            }
        }
    }

    [Fact]
    public void Plain_types_check_their_lengths()
    {
        foreach (ElementType type in new[] { PlainTypes.F32, PlainTypes.F16, PlainTypes.BF16, PlainTypes.F64, PlainTypes.I8 })
        {
            Assert.Throws<ArgumentException>(() => type.Decode(new byte[3 * type.BytesPerBlock], new float[4]));
            if (type.CanEncode) Assert.Throws<ArgumentException>(() => type.EncodeRow(new float[4], [], Effort.Reference, new byte[(4 * type.BytesPerBlock) + 1]));
        }
    }

    private delegate void NarrowRow(SimdLevel level, ReadOnlySpan<float> source, Span<ushort> destination);

    private delegate void WidenRow(SimdLevel level, ReadOnlySpan<ushort> source, Span<float> destination);

    private static void AssertEqual(ushort[] expected, ushort[] actual) => Assert.True(expected.AsSpan().SequenceEqual(actual));

    private static void AssertEqual(float[] expected, float[] actual) =>
        Assert.True(System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(expected).SequenceEqual(System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(actual)));

    private static void AssertSame(float expected, float actual, string what)
    {
        bool same = BitConverter.SingleToUInt32Bits(expected) == BitConverter.SingleToUInt32Bits(actual) || (float.IsNaN(expected) && float.IsNaN(actual));
        Assert.True(same, what);
    }
}
