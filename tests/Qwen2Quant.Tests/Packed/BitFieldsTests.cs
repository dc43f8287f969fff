using System.Runtime.InteropServices;
using Qwen2Quant.Formats.Packed;

namespace Qwen2Quant.Tests.Packed;

/// <summary>The words of quant-formats' test vectors, and a packer that knows nothing but the definition of the stream.</summary>
public class BitFieldsTests
{
    [Fact]
    public void EightNibblesInOrder() => Assert.Equal([0x76543210u], Words([0, 1, 2, 3, 4, 5, 6, 7], 4));

    [Fact]
    public void ThreeBitsStraddleWords()
    {
        Assert.Equal([0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu], Words([.. Enumerable.Range(0, 32).Select(i => (byte)(i % 8))], 3));
        Assert.Equal([0xDB6DB6DBu, 0xB6DB6DB6u, 0x6DB6DB6Du], Words([.. Enumerable.Repeat((byte)3, 32)], 3));
        Assert.Equal([0x24924924u, 0x49249249u, 0x92492492u], Words([.. Enumerable.Repeat((byte)4, 32)], 3));
    }

    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(8)]
    public void FieldsLieInTheStreamWhereItsDefinitionSays(int bits)
    {
        byte[] fields = [.. Enumerable.Range(0, 256).Select(i => (byte)(((i * 89) + (i * i * 7)) & ((1 << bits) - 1)))];
        byte[] packed = new byte[fields.Length * bits / 8];
        BitFields.Pack(fields, bits, packed);
        for (int k = 0; k < fields.Length; k++)
        {
            int field = 0;
            for (int b = 0; b < bits; b++) field |= ((packed[((k * bits) + b) / 8] >> (((k * bits) + b) % 8)) & 1) << b;
            Assert.Equal(fields[k], field);
        }

        byte[] unpacked = new byte[fields.Length];
        BitFields.Unpack(packed, bits, unpacked);
        Assert.Equal(fields, unpacked);
    }

    private static uint[] Words(byte[] fields, int bits)
    {
        byte[] packed = new byte[fields.Length * bits / 8];
        BitFields.Pack(fields, bits, packed);
        return MemoryMarshal.Cast<byte, uint>(packed).ToArray();
    }
}
