using System.Text;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

public class BpeTokenizerTests
{
    private static readonly BpeTokenizer Tokenizer = TokenizerData.TinyTokenizer;

    [Theory]
    [InlineData(21)]
    [InlineData(22)]
    public void DecodingGivesTheNormalizedTextBack(int seed)
    {
        Random random = new(seed);
        List<int> appended = [];
        for (int round = 0; round < 1500; round++)
        {
            string text = TokenizerData.RandomText(random, 40);
            bool parseSpecial = random.Next(2) == 0;
            int[] ids = Tokenizer.Encode(text, parseSpecial);
            Assert.True(Composed(text) == Tokenizer.Decode(ids), $"seed {seed}, round {round}: {TokenDisplay.Escape(Encoding.UTF8.GetBytes(text))}");
            appended.Clear();
            Tokenizer.Encode(Encoding.UTF8.GetBytes(text), parseSpecial, appended);
            Assert.Equal(ids, appended);
        }
    }

    [Fact]
    public void ArbitraryBytesAndUnitsNeverFail()
    {
        Random random = new(23);
        byte[] bytes = new byte[64];
        char[] units = new char[64];
        for (int round = 0; round < 2000; round++)
        {
            random.NextBytes(bytes);
            for (int i = 0; i < units.Length; i++) units[i] = (char)random.Next(0xD700, 0xE100);
            List<int> ids = [];
            Tokenizer.Encode(bytes, parseSpecial: true, ids);
            Assert.Equal(Composed(Encoding.UTF8.GetString(bytes)), Tokenizer.Decode([.. ids]));
            string wellFormed = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(units));
            Assert.Equal(Composed(wellFormed), Tokenizer.Decode(Tokenizer.Encode(units, parseSpecial: true)));
        }
    }

    [Fact]
    public void ALoneSurrogateIsTheReplacementCharacter() =>
        Assert.Equal(Tokenizer.Encode("a\ufffd b", parseSpecial: false), Tokenizer.Encode("a\ud800 b", parseSpecial: false));

    [Fact]
    public void ControlTokensAreParsedOnlyWhenAsked()
    {
        Assert.Equal([2022, .. Tokenizer.Encode("user\nA king", false), 2023], Tokenizer.Encode("<|im_start|>user\nA king<|im_end|>", parseSpecial: true));
        int[] plain = Tokenizer.Encode("<|im_start|>", parseSpecial: false);
        Assert.DoesNotContain(2022, plain);
        Assert.Equal("<|im_start|>", Tokenizer.Decode(plain));
        Assert.Equal("A king", Tokenizer.Decode(Tokenizer.Encode("<|im_start|>A king<|im_end|>", parseSpecial: true), skipControl: true));
    }

    [Fact]
    public void TheLeftmostThenLongestAddedTokenWins()
    {
        TokenizerDefinitionBuilder builder = TinyBuilder();
        string[] added = ["<x", "<xy>", "xy>z", "e\u0301!", "[u]"];
        for (int i = 0; i < added.Length; i++) builder.AddAdded(new AddedToken(2024 + i, added[i], IsSpecial: i != 4, IsNormalized: i == 3));
        BpeTokenizer tokenizer = new(builder.Build(PreTokenizers.Qwen2));
        Assert.Equal([2025, .. tokenizer.Encode("z", false)], tokenizer.Encode("<xy>z", parseSpecial: true));
        Assert.Equal([2024, .. tokenizer.Encode("q", false), 2026], tokenizer.Encode("<xqxy>z", parseSpecial: true));
        Assert.Equal([2027], tokenizer.Encode("\u00e9!", parseSpecial: true));
        Assert.Equal([.. tokenizer.Encode("<x", false), 2028], tokenizer.Encode("<x[u]", parseSpecial: false));
        Assert.Equal(2028, tokenizer.FindAdded("[u]"));
        Assert.Null(tokenizer.FindAdded("king"));
        Assert.DoesNotContain(2024, tokenizer.Encode("<x", parseSpecial: false));
    }

    [Fact]
    public void ThreadsShareOneTokenizer()
    {
        Random random = new(31);
        string[] texts = [.. Enumerable.Range(0, 200).Select(_ => TokenizerData.RandomText(random, 60))];
        int[][] expected = [.. texts.Select(text => Tokenizer.Encode(text, parseSpecial: true))];
        Parallel.For(0, 2000, new ParallelOptions { MaxDegreeOfParallelism = 8 }, i =>
            Assert.Equal(expected[i % 200], Tokenizer.Encode(texts[i % 200], parseSpecial: true)));
    }

    [Fact]
    public void StreamedTextEqualsDecodedText()
    {
        Random random = new(41);
        for (int round = 0; round < 500; round++)
        {
            int[] ids = [.. Enumerable.Range(0, random.Next(12)).Select(_ => random.Next(Tokenizer.VocabularySize))];
            if (round % 2 == 0) ids = Tokenizer.Encode(TokenizerData.RandomText(random, 12), parseSpecial: true);
            foreach (bool skipControl in new[] { false, true })
            {
                StreamingDecoder decoder = new(Tokenizer, skipControl);
                Assert.Equal(Tokenizer.Decode(ids, skipControl), string.Concat(ids.Select(decoder.Push)) + decoder.Finish());
            }
        }
    }

    [Fact]
    public void AStreamHoldsBackHalfACharacter()
    {
        int[] ids = Tokenizer.Encode("😀", parseSpecial: false);
        StreamingDecoder decoder = new(Tokenizer);
        Assert.All(ids[..^1], id => Assert.Equal("", decoder.Push(id)));
        Assert.Equal("😀", decoder.Push(ids[^1]));
        Assert.Equal("", decoder.Push(ids[0]));
        Assert.Equal("\ufffd", decoder.Finish());
    }

    [Fact]
    public void PiecesAreShownEscaped()
    {
        Assert.Equal(" king", TokenDisplay.Escape(Tokenizer.PieceBytes(Tokenizer.Encode(" king", false)[0])));
        Assert.Equal(@"a\n\t\\é\x80\xf0\x9f\u{1b}", TokenDisplay.Escape([.. "a\n\t\\é"u8, 0x80, 0xF0, 0x9F, 0x1B]));
    }

    [Fact]
    public void PaddingDecodesToNothing()
    {
        BpeTokenizer padded = new(TokenizerData.Tiny.WithVocabularySize(2048));
        Assert.Equal((2048, TokenKind.Unused), (padded.VocabularySize, padded.Kind(2047)));
        Assert.Equal("", padded.Decode([2047, 2024]));
        Assert.Equal(Tokenizer.Encode("[PAD2047]", true), padded.Encode("[PAD2047]", true));
    }

    /// <summary>Composed by an encoder of its own, so that the comparison with .NET's ICU-less Normalize is not needed.</summary>
    internal static string Composed(string text)
    {
        GrowingBuffer<byte> output = new(16);
        return Qwen2Quant.Model.Tokenization.Unicode.Nfc.TryNormalize(Encoding.UTF8.GetBytes(text), output) ? Encoding.UTF8.GetString(output.Span) : text;
    }

    internal static TokenizerDefinitionBuilder TinyBuilder()
    {
        TokenizerDefinition tiny = TokenizerData.Tiny;
        TokenizerDefinitionBuilder builder = new("tiny");
        for (int id = 0; id < tiny.Vocabulary.Count; id++) builder.AddToken(id, tiny.Vocabulary.Utf8(id), tiny.Vocabulary.Kind(id));
        for (int rank = 0; rank < tiny.Merges.Count; rank++) builder.AddMerge(tiny.Merges.Text(rank));
        return builder;
    }
}
