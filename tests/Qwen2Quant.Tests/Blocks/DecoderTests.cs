using Qwen2Quant.Core.Encoding;
using System.Globalization;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

public class DecoderTests
{
    public static TheoryData<string> GoldenTypes => new(
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL",
        "IQ3_S", "IQ2_S", "IQ4_XS", "IQ1_M", "BF16", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4");

    public static TheoryData<string> AllBlockTypes => [.. BlockData.BlockTypes.Select(type => type.Name)];

    [Theory]
    [MemberData(nameof(GoldenTypes))]
    public void Decodes_golden_blocks_bit_for_bit(string name)
    {
        ElementType type = BlockData.Element(name);
        byte[] blocks = BlockData.Bytes($"{name}.bin");
        float[] values = new float[blocks.Length / type.BytesPerBlock * type.ValuesPerBlock];
        type.Decode(blocks, values);
        BlockData.AssertSameBits(BlockData.Floats($"{name}.f32"), values, name);
    }

    /// <summary>Hashes of what ggml decodes from generated blocks, and the first two values.</summary>
    [Theory]
    [InlineData("Q4_0", "1f2398d003f45d3e", "74885cc29b89a82dc9fa793538de0e666dcb8a962f4bfc6834cf245c3893540d", "0.24621582 -0.984863281")]
    [InlineData("Q4_1", "1e5927d6b791c82b", "6ef2e6e2515d9f667b5a4f924e4c484982c62607825aedcccecada3aa3e24997", "1.05285645 1.17596436")]
    [InlineData("Q5_0", "0ffb9e80800c9e3b", "20b955e2df16bb63478d0c842ab7c929de5059d7b84df0b516eda519c288286f", "-0.36932373 0.615539551")]
    [InlineData("Q5_1", "bf92ca569fca8188", "a8ba89c52d6275cfca0ce0664df52b5d31f708b32754264bd1a18115fdcff497", "1.29907227 0.929748535")]
    [InlineData("Q8_0", "aca070077e69b6fd", "48c14cf271e4c6565c9c254f22952bd44cb3ab7fed2ba068284599605ed95668", "11.0797119 -9.84863281")]
    [InlineData("Q2_K", "bbe7c1e6cedcec3c", "0456e058172ce3a7b91a5b4ec2a68557655f304af68d6322308a4706461cc8ee", "-0.89654541 -0.969116211")]
    [InlineData("Q3_K", "086f9f33dd8708b5", "af606b263799abd951c8cb3a02996fd78252bda95589c5c3a90a668653425728", "-2.47802734 -2.47802734")]
    [InlineData("Q4_K", "5272c96a1e9de476", "0fb41d3097cfd27956fef7dcc219fef1634daf9eee02dbf7026b6b00b3229f4c", "-0.989013672 5.9050293")]
    [InlineData("Q5_K", "e24dfd72594eaf61", "73ac21a1dfd527e00b166ba52278dc379a5d25ea37b7d1078bff80b31dc56560", "19.6931152 9.84448242")]
    [InlineData("Q6_K", "32cc20165219c18e", "6b950001f74be94b179c2c7330ee88027c708ab196000af44cc61ed4f62e847f", "24.9755859 -18.3154297")]
    [InlineData("IQ4_NL", "1f2398d003f45d3e", "2868295782ae6ff8c2516950262efbe79a5386f73ebe6533f653d92ec99e4f49", "3.07769775 -15.6347046")]
    [InlineData("IQ4_XS", "f4fe49c411dfa269", "e9c088b5acfcac11edb6cff4a67b7640c323ebd26b91bb31cabb67e8dc44e842", "24.621582 -9.84863281")]
    [InlineData("TQ1_0", "73064845095ca470", "20bb5200bada3e706197ea8cfc2bf7d86ee9065f7f1921cf1b96d1610851e431", "0.12286377 -0.12286377")]
    [InlineData("TQ2_0", "605f015cd921737e", "60da39b47764df9019611998477da136c79f112c377f600a07c689a7e1e3c77e", "0 0.138427734")]
    [InlineData("MXFP4", "2196c4325f1eaa4f", "2fcc14878abbff105dc0e4c53e1cb5dd75cefbbb25ea42ef64f6dff70ff1afbb", "-0.0234375 -0.015625")]
    [InlineData("NVFP4", "9f3f6f10a3c3980a", "3d6150e2e7044f71a5f4de03e58af3bb390cd371201a62822100b7d5be43c7cc", "0 -18")]
    [InlineData("Q1_0", "1f2398d003f45d3e", "39fddb9ced593baabf81e5c82dc186d4671fb1f23d1bd8de796ec39522bca3f5", "-0.12310791 0.12310791")]
    [InlineData("Q2_0", "1f2398d003f45d3e", "677d1992ab76e737b525d33c0d01b08700a8476004715079e58b8d8a956af486", "0.12310791 0.12310791")]
    [InlineData("IQ2_XXS", "2b8fdb19cc3b12f4", "304067c797caa195dc4a88d82e33dfcb4ba1502292274e4e7bffe5cf797e945e", "-1.10797119 5.95534515")]
    [InlineData("IQ2_XS", "e3b90b7208f3508b", "b6accbd0d240f17e11c30d68fab0b74d9e1790795d2d65ff90d3408f9f26f389", "3.57012939 19.1894455")]
    [InlineData("IQ2_S", "7b949b49d056ca1f", "6e2c7704ae68f9695c92ea1ebbfee9a192b9088961a063c2572f24a890198b8a", "2.33905029 -2.33905029")]
    [InlineData("IQ3_XXS", "c2239581880153f1", "ee5e173895d7b8ee7e62c254e4840130d666fe2444cd1644559ae52d8597cc6d", "2.58526611 -12.9263306")]
    [InlineData("IQ3_S", "96eda627ee6f2250", "f0c6b075ad2f31295cdba530bc606cf45c9b73780b7f281b7b6ddf4895e18781", "-20.3128052 16.6195679")]
    [InlineData("IQ1_S", "37d7a696d3b97d0a", "e3bfc1a74a81d6b924e756c8ac97c4bfd62108a6a533dd1b0f3c9770dbe87ff3", "-0.200050354 -0.200050354")]
    [InlineData("IQ1_M", "3427532796c57368", "ae669be635daf3a65a441d812c6c1d910c7fa86a868d8dc025a8cf0727ffa898", "-0.00159454346 -0.0143508911")]
    public void Decodes_generated_blocks_to_the_golden_hash(string name, string blockHash, string valueHash, string firstValues)
    {
        BlockType type = BlockData.Block(name);
        byte[] blocks = BlockData.RandomBlocks(type, 8, 4242);
        Assert.StartsWith(blockHash, BlockData.Hash(blocks));
        float[] values = new float[8 * type.ValuesPerBlock];
        type.Decode(blocks, values);
        Assert.Equal(firstValues.Split(' ').Select(text => float.Parse(text, CultureInfo.InvariantCulture)), values[..2]);
        Assert.Equal(valueHash, BlockData.Hash(values));
    }

    [Fact]
    public void Decodes_the_activation_types_by_their_formula()
    {
        BlockType q81 = BlockData.Block("Q8_1");
        byte[] block = BlockData.RandomBlocks(q81, 1, 5);
        float[] values = new float[32];
        q81.Decode(block, values);
        float d = (float)MemoryMarshal.Read<Half>(block);
        for (int j = 0; j < 32; j++) Assert.Equal((sbyte)block[4 + j] * d, values[j]);

        BlockType q8K = BlockData.Block("Q8_K");
        block = BlockData.RandomBlocks(q8K, 1, 6);
        values = new float[256];
        q8K.Decode(block, values);
        for (int j = 0; j < 256; j++) Assert.Equal(0.125f * (sbyte)block[4 + j], values[j]);
    }

    [Theory]
    [MemberData(nameof(AllBlockTypes))]
    public void Every_vector_width_decodes_the_same_bits(string name)
    {
        BlockType type = BlockData.Block(name);
        for (int blockCount = 0; blockCount <= 3; blockCount++)
        {
            byte[] blocks = BlockData.RandomBlocks(type, blockCount, 99);
            float[] scalar = new float[blockCount * type.ValuesPerBlock];
            type.Decode(SimdLevel.Scalar, blocks, scalar);
            foreach (SimdLevel level in Simd.Available)
            {
                float[] values = new float[scalar.Length + 1];
                values[^1] = 77;
                type.Decode(level, blocks, values.AsSpan(0, scalar.Length));
                BlockData.AssertSameBits(scalar, values.AsSpan(0, scalar.Length), $"{name} {level} {blockCount} blocks");
                Assert.Equal(77, values[^1]);
            }
        }
    }

    /// <summary>Every byte pattern decodes without a fault, zeros, denormal, infinite and NaN scales among them.</summary>
    [Theory]
    [MemberData(nameof(AllBlockTypes))]
    public void Any_bytes_decode_at_every_width(string name)
    {
        BlockType type = BlockData.Block(name);
        Random random = new(17);
        byte[] blocks = new byte[64 * type.BytesPerBlock];
        random.NextBytes(blocks);
        blocks.AsSpan(0, type.BytesPerBlock).Clear();
        blocks.AsSpan(type.BytesPerBlock, type.BytesPerBlock).Fill(0xff);
        float[] scalar = new float[64 * type.ValuesPerBlock];
        type.Decode(SimdLevel.Scalar, blocks, scalar);
        foreach (SimdLevel level in Simd.Available)
        {
            float[] values = new float[scalar.Length];
            type.Decode(level, blocks, values);
            for (int i = 0; i < values.Length; i++)
            {
                bool same = BitConverter.SingleToUInt32Bits(scalar[i]) == BitConverter.SingleToUInt32Bits(values[i]) || (float.IsNaN(scalar[i]) && float.IsNaN(values[i]));
                Assert.True(same, $"{name} {level} value {i}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(AllBlockTypes))]
    public void Lengths_that_are_not_whole_blocks_are_refused(string name)
    {
        BlockType type = BlockData.Block(name);
        Assert.Throws<ArgumentException>(() => type.Decode(new byte[type.BytesPerBlock], new float[type.ValuesPerBlock - 1]));
        Assert.Throws<ArgumentException>(() => type.Decode(new byte[type.BytesPerBlock - 1], new float[type.ValuesPerBlock]));
        Assert.Throws<ArgumentException>(() => type.Decode(new byte[2 * type.BytesPerBlock], new float[type.ValuesPerBlock]));
        Assert.Throws<ArgumentException>(() => type.EncodeRow(new float[type.ValuesPerBlock], [], Effort.Reference, new byte[type.BytesPerBlock + 1]));
    }
}
