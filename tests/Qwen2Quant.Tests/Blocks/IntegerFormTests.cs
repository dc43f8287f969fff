using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

public unsafe class IntegerFormTests
{
    public static TheoryData<string> Types => [.. BlockData.BlockTypes.Where(type => type.Integers is not null).Select(type => type.Name)];

    [Fact]
    public void TheCommonTypesHaveOne() =>
        Assert.All(["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"], name => Assert.NotNull(BlockData.Block(name).Integers));

    [Theory]
    [MemberData(nameof(Types))]
    public void ScalesCodesAndOriginsMakeTheDecodedValues(string name)
    {
        const int Stride = 3;
        BlockType type = BlockData.Block(name);
        IntegerForm form = type.Integers!;
        byte[] golden = BlockData.Has($"{name}.bin") ? BlockData.Bytes($"{name}.bin") : [];
        byte[] blocks = [.. golden, .. BlockData.RandomBlocks(type, 256, 4711)];
        int count = blocks.Length / type.BytesPerBlock * type.ValuesPerBlock / 256 * 256;
        byte[] row = blocks[..(int)type.ByteCount(count)];
        float[] decoded = new float[count];
        type.Decode(row, decoded);
        short[] codes = new short[count];
        float[] scales = new float[count / 32 * Stride], origins = new float[count / 32 * Stride];
        fixed (byte* from = row)
        fixed (short* toCodes = codes)
        fixed (float* toScales = scales, toOrigins = origins) form.Unpack(from, count, toCodes, toScales, toOrigins, Stride);
        if (!form.HasOrigins) Assert.All(origins, origin => Assert.Equal(0, origin));
        for (int i = 0; i < count; i++)
        {
            Assert.InRange(codes[i], -IntegerForm.LargestCode, IntegerForm.LargestCode);
            double product = (double)scales[i / 32 * Stride] * codes[i];
            double origin = origins[i / 32 * Stride];
            Assert.Equal(product + origin, decoded[i], 3e-7 * (Math.Abs(product) + Math.Abs(origin)));
        }
    }
}
