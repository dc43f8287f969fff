using System.Text;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

/// <summary>Merging against the plain definition of byte-pair encoding, and its cost on text without spaces.</summary>
public class MergingTests
{
    private static readonly Dictionary<(int, int), (int Rank, int Result)> Ranks = BuildRanks();

    [Fact]
    public void EqualsThePlainDefinition()
    {
        Random random = new(7);
        MergeTable table = new(TokenizerData.Tiny.Merges.Ranked);
        int[] byteTokens = [.. Enumerable.Range(0, 256).Select(value => TokenizerData.Tiny.Vocabulary.Find(ByteAlphabet.Spell((byte)value).ToString()))];
        PieceMerger merger = new(table, byteTokens);
        string[] alphabets = ["a", "the", "andthekigLORDs ", "enarsthoui"];
        for (int length = 1; length <= 320; length++)
        {
            string alphabet = alphabets[length % alphabets.Length];
            byte[] piece = [.. Enumerable.Range(0, length).Select(_ => (byte)alphabet[random.Next(alphabet.Length)])];
            GrowingBuffer<int> ids = new(4);
            merger.Encode(piece, ids);
            Assert.Equal(EncodePlainly([.. piece.Select(value => byteTokens[value])]), ids.ToArray());
        }
    }

    [Theory]
    [InlineData("a")]
    [InlineData("abcdefghijklmnopqrstuvwxyz")]
    [InlineData("the")]
    [InlineData("中文字")]
    public void CostGrowsAlmostLinearlyWithoutSpaces(string alphabet)
    {
        long small = Steps(alphabet, 20_000);
        long large = Steps(alphabet, 200_000);
        Assert.True(large <= 14 * small, $"{small} steps for 20,000 characters, {large} for ten times as many");
    }

    private static long Steps(string alphabet, int length)
    {
        Random random = new(11);
        string text = string.Concat(Enumerable.Range(0, length).Select(_ => alphabet[random.Next(alphabet.Length)]));
        TextEncoder encoder = TokenizerData.TinyTokenizer.CreateEncoder();
        TokenizerData.TinyTokenizer.EncodeValid(encoder, Encoding.UTF8.GetBytes(text), parseSpecial: true);
        Assert.Equal(text, TokenizerData.TinyTokenizer.Decode(encoder.Ids.Span));
        return encoder.Merger.HeapSteps + length;
    }

    private static int[] EncodePlainly(List<int> ids)
    {
        while (true)
        {
            (int Rank, int Result, int At) best = (int.MaxValue, 0, 0);
            for (int i = 0; i + 1 < ids.Count; i++)
            {
                if (Ranks.TryGetValue((ids[i], ids[i + 1]), out (int Rank, int Result) merge) && merge.Rank < best.Rank) best = (merge.Rank, merge.Result, i);
            }

            if (best.Rank == int.MaxValue) return [.. ids];
            ids[best.At] = best.Result;
            ids.RemoveAt(best.At + 1);
        }
    }

    private static Dictionary<(int, int), (int, int)> BuildRanks()
    {
        Dictionary<(int, int), (int, int)> ranks = [];
        ReadOnlySpan<Merge> ranked = TokenizerData.Tiny.Merges.Ranked;
        for (int rank = 0; rank < ranked.Length; rank++) ranks.Add((ranked[rank].Left, ranked[rank].Right), (rank, ranked[rank].Result));
        return ranks;
    }
}
