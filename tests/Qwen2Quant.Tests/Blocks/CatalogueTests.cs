using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

public class CatalogueTests
{
    /// <summary>ggml's type table: id, name, values and bytes of a block.</summary>
    [Theory]
    [InlineData(0, "F32", 1, 4)]
    [InlineData(1, "F16", 1, 2)]
    [InlineData(2, "Q4_0", 32, 18)]
    [InlineData(3, "Q4_1", 32, 20)]
    [InlineData(6, "Q5_0", 32, 22)]
    [InlineData(7, "Q5_1", 32, 24)]
    [InlineData(8, "Q8_0", 32, 34)]
    [InlineData(9, "Q8_1", 32, 36)]
    [InlineData(10, "Q2_K", 256, 84)]
    [InlineData(11, "Q3_K", 256, 110)]
    [InlineData(12, "Q4_K", 256, 144)]
    [InlineData(13, "Q5_K", 256, 176)]
    [InlineData(14, "Q6_K", 256, 210)]
    [InlineData(15, "Q8_K", 256, 292)]
    [InlineData(16, "IQ2_XXS", 256, 66)]
    [InlineData(17, "IQ2_XS", 256, 74)]
    [InlineData(18, "IQ3_XXS", 256, 98)]
    [InlineData(19, "IQ1_S", 256, 50)]
    [InlineData(20, "IQ4_NL", 32, 18)]
    [InlineData(21, "IQ3_S", 256, 110)]
    [InlineData(22, "IQ2_S", 256, 82)]
    [InlineData(23, "IQ4_XS", 256, 136)]
    [InlineData(24, "I8", 1, 1)]
    [InlineData(25, "I16", 1, 2)]
    [InlineData(26, "I32", 1, 4)]
    [InlineData(27, "I64", 1, 8)]
    [InlineData(28, "F64", 1, 8)]
    [InlineData(29, "IQ1_M", 256, 56)]
    [InlineData(30, "BF16", 1, 2)]
    [InlineData(34, "TQ1_0", 256, 54)]
    [InlineData(35, "TQ2_0", 256, 66)]
    [InlineData(39, "MXFP4", 32, 17)]
    [InlineData(40, "NVFP4", 64, 36)]
    [InlineData(41, "Q1_0", 128, 18)]
    [InlineData(42, "Q2_0", 64, 18)]
    public void Types_have_ggmls_ids_and_sizes(int id, string name, int values, int bytes)
    {
        GgmlType type = GgmlTypes.Find(id)!;
        Assert.Equal((id, name, values, bytes), (type.Id, type.Name, type.Element.ValuesPerBlock, type.Element.BytesPerBlock));
        Assert.Same(type, GgmlTypes.Find(name.ToLowerInvariant()));
        Assert.Same(type, GgmlTypes.Of(type.Element));
    }

    [Fact]
    public void Ids_that_ggml_removed_or_never_had_are_unknown()
    {
        foreach (int id in new[] { int.MinValue, -1, 4, 5, 31, 32, 33, 36, 37, 38, 43, 133, int.MaxValue }) Assert.Null(GgmlTypes.Find(id));
        Assert.Null(GgmlTypes.Find("Q4_2"));
        Assert.Null(GgmlTypes.Of(PlainTypes.U8));
        Assert.Equal(35, GgmlTypes.All.Count);
        Assert.Equal(GgmlTypes.All.OrderBy(type => type.Id), GgmlTypes.All);
    }

    [Fact]
    public void No_block_type_is_missing_from_the_catalogue()
    {
        IEnumerable<Type> written = typeof(BlockType).Assembly.GetTypes().Where(type =>
            !type.IsAbstract && !type.IsGenericType
            && (type.IsSubclassOf(typeof(BlockType)) || typeof(IBlockFormat).IsAssignableFrom(type) || typeof(INibbleFormat).IsAssignableFrom(type) || typeof(ICodebookLayout).IsAssignableFrom(type)));
        Assert.Equal(written.Select(type => type.Name).Order(), BlockData.BlockTypes.Select(type => type.Name).Order());
    }
}
