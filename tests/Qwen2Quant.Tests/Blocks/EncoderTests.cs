using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

public class EncoderTests
{
    public static TheoryData<string> EncodableBlockTypes => [.. BlockData.BlockTypes.Where(type => type.CanEncode).Select(type => type.Name)];

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("Q4_1")]
    [InlineData("Q5_0")]
    [InlineData("Q5_1")]
    [InlineData("Q8_0")]
    [InlineData("BF16")]
    public void Encodes_the_golden_rows_byte_for_byte(string name)
    {
        byte[] encoded = BlockData.Encode(BlockData.Element(name), BlockData.Floats($"{name}.enc.f32"), 128, []);
        BlockData.AssertSameBytes(BlockData.Bytes($"{name}.enc.bin"), encoded, name);
    }

    [Fact]
    public void Generators_give_the_golden_inputs()
    {
        Assert.Equal("bbd7de9cc21e224511f5aac5f87c8f419e567a1256df0372931d2529ad32b089", BlockData.Hash(BlockData.Values(2048)));
        Assert.Equal("48f17f1b67df9ba321598a6a685e66b62d92b3cc726a626adb9364b43a6131a4", BlockData.Hash(BlockData.Values(512000)));
        Assert.Equal("03ec125946fb59ac7e39b223fded5156e902ab64697607932380afdee1d7f9c3", BlockData.Hash(BlockData.Importance()));
    }

    /// <summary>What ggml writes for 4 and for 1000 rows of 512 generated values.</summary>
    [Theory]
    [InlineData("F16", "af1d6596a3d69a90cdfc4e1ce7f8b0c6341e045bed1ccfb82cd5d0ffd1071fd1", "750e11e8283faead2fc5")]
    [InlineData("BF16", "e709f910c132352131809050c88d17f38702630802205149b27d0351ada25b16", "41873f743479f08b7f7d")]
    [InlineData("Q4_0", "dfe08e533112eef307b575f23f5bdcef857d63bed3292c7ab4b8d68e7a69bff1", "7c14a4a252f7c669493a")]
    [InlineData("Q4_1", "208cc1aa1cac96aed1723756cc45d1fab0aa1a6d8e51d30233eabdf136637b5b", "551fa28f18f66439dfb6")]
    [InlineData("Q5_0", "1c0467ed93858de02d5576091e3402a879b1d8bc323025a6aa5cc3ab51c1ff68", "f9c28d83946950c7653c")]
    [InlineData("Q5_1", "5b8f5969523025d6f78ebdd9668e52a826715a3b35b69d73b692c7028a56b449", "ec01bb702cb33c5e47ac")]
    [InlineData("Q8_0", "f7796670858356f21d04bfb53ca06938f2d12af69fa90c9082273d035d9f3949", "474526d6685245511c0c")]
    [InlineData("Q6_K", "86fa71725e8bd3d732b1426c61fb8fcce54ea01188c11d6e39cdedaf3edcdae3", "7117f583c485e22e997e")]
    public void Encodes_generated_rows_to_the_golden_hash(string name, string hash, string largeHash)
    {
        ElementType type = BlockData.Element(name);
        Assert.Equal(hash, BlockData.Hash(BlockData.Encode(type, BlockData.Values(2048), 512, [])));
        Assert.StartsWith(largeHash, BlockData.Hash(BlockData.Encode(type, BlockData.Values(512000), 512, [])));
    }

    /// <summary>The same with an importance matrix; the types that do not use one keep their bytes.</summary>
    [Theory]
    [InlineData("F16", "af1d6596a3d69a90cdfc4e1ce7f8b0c6341e045bed1ccfb82cd5d0ffd1071fd1", "750e11e8283faead2fc5")]
    [InlineData("BF16", "e709f910c132352131809050c88d17f38702630802205149b27d0351ada25b16", "41873f743479f08b7f7d")]
    [InlineData("Q8_0", "f7796670858356f21d04bfb53ca06938f2d12af69fa90c9082273d035d9f3949", "474526d6685245511c0c")]
    [InlineData("Q4_0", "7872f763e33fad103d1ad7bb6b03e200df69393791564b7faec6b625ff530c7f", "a5f66c9cf2daab22ef5f")]
    [InlineData("Q4_1", "4a37f11dc571fe20465d435288c1221d4fa851676222b695c6f1ee0f4e3fbc56", "b4456bc5f2d95e0b6bcd")]
    [InlineData("Q5_0", "fc7ba5ae4c670b091609cd4abff10953d36955743001109a4f79b2d3cc9972fc", "ca5dc551603e93b735aa")]
    [InlineData("Q5_1", "c553facad5ce108d5f022077cc24e3c79ead9166a0280abf30ef290c96322c78", "289621397a95e87e9a1f")]
    [InlineData("Q6_K", "2a0b8e029b31f37792e6d26523598dbe8f541bf2a8e05630859c5a65be825e38", "c4a5a729b2deffa2bd55")]
    public void Encodes_generated_rows_with_importance_to_the_golden_hash(string name, string hash, string largeHash)
    {
        ElementType type = BlockData.Element(name);
        float[] importance = BlockData.Importance();
        Assert.Equal(hash, BlockData.Hash(BlockData.Encode(type, BlockData.Values(2048), 512, importance)));
        Assert.StartsWith(largeHash, BlockData.Hash(BlockData.Encode(type, BlockData.Values(512000), 512, importance)));
    }

    [Theory]
    [InlineData("Q4_0", "0080", "88", 16, "0000", "00")]
    [InlineData("Q5_0", "0080ffffffff", "00", 16, "000000000000", "00")]
    [InlineData("Q4_1", "00000000", "00", 16, "00000000", "00")]
    [InlineData("Q5_1", "0000000000000000", "00", 16, "0000000000000000", "00")]
    [InlineData("Q8_0", "0000", "00", 32, "0000", "00")]
    [InlineData("Q6_K", "", "00", 210, "", "00")]
    public void A_block_of_zeros_has_ggmls_bytes(string name, string head, string fill, int count, string weightedHead, string weightedFill)
    {
        BlockType type = BlockData.Block(name);
        float[] zeros = new float[type.ValuesPerBlock];
        float[] ones = [.. Enumerable.Repeat(1f, zeros.Length)];
        string Repeat(string text) => string.Concat(Enumerable.Repeat(text, count));
        Assert.Equal(head + Repeat(fill), Convert.ToHexStringLower(BlockData.Encode(type, zeros, zeros.Length, [])));
        Assert.Equal(weightedHead + Repeat(weightedFill), Convert.ToHexStringLower(BlockData.Encode(type, zeros, zeros.Length, ones)));
    }

    [Theory]
    [MemberData(nameof(EncodableBlockTypes))]
    public void Every_vector_width_writes_the_same_bytes(string name)
    {
        BlockType type = BlockData.Block(name);
        int length = type.ValuesPerBlock;
        foreach ((string what, float[] row) in SpecialRows.For(length))
        {
            float[] importance = BlockData.Importance()[..Math.Min(512, row.Length)];
            if (importance.Length < row.Length) importance = [.. Enumerable.Range(0, row.Length).Select(i => importance[i % 512])];
            foreach (float[] weights in new[] { [], importance, new float[row.Length] })
            {
                byte[] scalar = Encode(SimdLevel.Scalar);
                foreach (SimdLevel level in Simd.Available) BlockData.AssertSameBytes(scalar, Encode(level), $"{name} {level} {what}, {weights.Length} weights");

                byte[] Encode(SimdLevel level)
                {
                    byte[] guarded = new byte[type.ByteCount(row.Length) + 1];
                    guarded[^1] = 0x5a;
                    type.EncodeRow(level, row, weights, guarded.AsSpan(..^1));
                    Assert.Equal(0x5a, guarded[^1]);
                    return guarded;
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(EncodableBlockTypes))]
    public void Values_within_the_limit_decode_to_finite_ones(string name)
    {
        BlockType type = BlockData.Block(name);
        foreach ((string what, float[] row) in SpecialRows.For(type.ValuesPerBlock))
        {
            foreach (float scale in new[] { 1, type.LargestMagnitude / Math.Max(row.Select(MathF.Abs).DefaultIfEmpty().Max(), 1e-30f) })
            {
                float[] scaled = [.. row.Select(value => Math.Clamp(value * scale, -type.LargestMagnitude, type.LargestMagnitude))];
                float[] decoded = new float[row.Length];
                type.Decode(BlockData.Encode(type, scaled, Math.Max(row.Length, 1), []), decoded);
                Assert.True(FiniteCheck.FindNonFinite(decoded) < 0, $"{name} {what} x {scale}");
            }
        }
    }

    /// <summary>Minus and plus the extreme: the first decides the sign of the scale (Q4_0, Q5_0), and both come back exactly where the format can hold them.</summary>
    [Theory]
    [InlineData("Q4_0", 1f, -1f, 0xb0, 0)]
    [InlineData("Q4_0", -1f, 1f, 0x30, 0)]
    [InlineData("Q5_0", 1f, -1f, 0xac, 0)]
    [InlineData("Q5_0", -1f, 1f, 0x2c, 0)]
    public void The_first_of_two_equal_extremes_decides_the_sign(string name, float first, float second, byte scaleHighByte, byte scaleLowByte)
    {
        BlockType type = BlockData.Block(name);
        foreach (SimdLevel level in Simd.Available)
        {
            for (int at = 0; at < 31; at++)
            {
                float[] row = new float[32];
                (row[at], row[31]) = (first, second);
                byte[] block = new byte[type.BytesPerBlock];
                type.EncodeRow(level, row, [], block);
                Assert.Equal((scaleLowByte, scaleHighByte), (block[0], block[1]));
                float[] decoded = new float[32];
                type.Decode(block, decoded);
                Assert.Equal(first, decoded[at]);
            }
        }
    }

    /// <summary>ggml keeps the first zero it meets: the sign of a stored zero minimum.</summary>
    [Theory]
    [InlineData("Q4_1")]
    [InlineData("Q5_1")]
    public void The_minimum_keeps_the_sign_of_the_first_zero(string name)
    {
        BlockType type = BlockData.Block(name);
        foreach (SimdLevel level in Simd.Available)
        {
            foreach (float first in new[] { 0f, -0f })
            {
                float[] row = [.. Enumerable.Repeat(1f, 32)];
                row[9] = first;
                row[20] = -first;
                byte[] block = new byte[type.BytesPerBlock];
                type.EncodeRow(level, row, [], block);
                Assert.Equal(float.IsNegative(first) ? 0x80 : 0, block[3]);
                row.AsSpan().Fill(-first);
                row[0] = first;
                type.EncodeRow(level, row, [], block);
                Assert.Equal((0, 0, 0, float.IsNegative(first) ? 0x80 : 0), (block[0], block[1], block[2], block[3]));
            }
        }
    }

    [Fact]
    public void Types_without_an_encoder_refuse()
    {
        foreach (BlockType type in BlockData.BlockTypes.Where(type => !type.CanEncode))
        {
            Assert.Throws<NotSupportedException>(() => type.EncodeRow(new float[type.ValuesPerBlock], [], new byte[type.BytesPerBlock]));
        }
    }

    [Fact]
    public void Importance_of_another_length_is_refused()
    {
        Assert.Throws<ArgumentException>(() => BlockData.Block("Q4_0").EncodeRow(new float[32], new float[31], new byte[18]));
    }
}
