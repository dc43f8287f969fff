using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

public class CodebookTests
{
    [Theory]
    [InlineData("Iq2Xxs", 256, "05826b5d3e472a3a78f196be62ac78acf81df0f909626e12ab9fa2a5d490dd54")]
    [InlineData("Iq2Xs", 512, "06e47aaca60b4dc1d9b5a3f34540437058a6b142b4d7a59d5ded769b4d1bf1de")]
    [InlineData("Iq2S", 1024, "e1aa1473412b0552c2174c30ef22ab4073f6a181b85a17056e8249bd2932fd88")]
    [InlineData("Iq3Xxs", 256, "46e35f5a997efdee6c99ce57854c8a0d4f0ff8ca57e5e8a60c0793ea580acf5d")]
    [InlineData("Iq3S", 512, "bd1af4945a1717c65610b0284e4628b9a1ba3b306fae3a06f6e5f597356e349f")]
    [InlineData("Iq1", 2048, "07540ffc1aeaf6ad4d97e96b0fcc765aae39671d4ae4a27bbd0e796fde167c6a")]
    public void Rows_have_the_hash_of_ggmls_grid(string name, int rowCount, string hash)
    {
        Codebook book = name switch
        {
            "Iq2Xxs" => Codebooks.Iq2Xxs,
            "Iq2Xs" => Codebooks.Iq2Xs,
            "Iq2S" => Codebooks.Iq2S,
            "Iq3Xxs" => Codebooks.Iq3Xxs,
            "Iq3S" => Codebooks.Iq3S,
            _ => Codebooks.Iq1,
        };
        byte[] rows = [.. book.Rows.ToArray().Select(element => (byte)(sbyte)element)];
        Assert.Equal(rowCount * book.RowLength, rows.Length);
        Assert.Equal(hash, BlockData.Hash(rows));
    }

    [Fact]
    public void Signs_of_eight_values_are_even()
    {
        for (int bits = 0; bits < 128; bits++)
        {
            int signs = Codebook.EvenSigns(bits);
            Assert.Equal(bits, signs & 127);
            Assert.Equal(0, System.Numerics.BitOperations.PopCount((uint)signs) & 1);
        }
    }
}
