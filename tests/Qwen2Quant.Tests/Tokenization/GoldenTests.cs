using System.Text;
using System.Text.Json;
using Qwen2Quant.Model.Chat;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

/// <summary>Ids that other software made: Transformers for the small vocabulary, llama.cpp's vocabulary test for the real one.</summary>
public class GoldenTests
{
    private static readonly Lazy<TokenizerDefinition> Real = new(() => TokenizerJson.Parse(
        File.ReadAllBytes(Path.Combine(TokenizerData.RealFolder!, "tokenizer.json")),
        TokenizerConfigJson.Parse(File.ReadAllBytes(Path.Combine(TokenizerData.RealFolder!, "tokenizer_config.json")))));

    [Fact]
    public void TinyVocabularyEqualsTransformers()
    {
        using JsonDocument golden = JsonDocument.Parse(TokenizerData.Read("tiny-golden.json"));
        Assert.Equal(9, golden.RootElement.GetArrayLength());
        foreach (JsonElement row in golden.RootElement.EnumerateArray())
        {
            string text = row.GetProperty("text").GetString()!;
            int[] expected = [.. row.GetProperty("tokens").EnumerateArray().Select(id => id.GetInt32())];
            bool isPrefix = row.TryGetProperty("prefix", out _);
            string decoded = TokenizerData.TinyTokenizer.Decode(expected);
            Assert.Equal(isPrefix ? text[..decoded.Length] : text, decoded);
            if (isPrefix) Assert.Equal(expected, TokenizerData.TinyTokenizer.Encode(text, parseSpecial: false)[..expected.Length]);
            else if (!text.StartsWith(' ')) Assert.Equal(expected, TokenizerData.TinyTokenizer.Encode(text, parseSpecial: false));
        }
    }

    [RealVocabularyFact]
    public void RealVocabularyEqualsLlamaCpp()
    {
        BpeTokenizer tokenizer = new(Real.Value);
        string[] texts = Encoding.UTF8.GetString(TokenizerData.Read("qwen2.inp")).Split("\n__ggml_vocab_test__\n");
        string[] ids = Encoding.UTF8.GetString(TokenizerData.Read("qwen2.out")).TrimEnd('\n').Split('\n');
        Assert.Equal(46, ids.Length);
        for (int i = 0; i < ids.Length; i++)
        {
            int[] actual = tokenizer.Encode(texts[i], parseSpecial: false);
            Assert.Equal(ids[i].Trim(), string.Join(' ', actual));
            Assert.Equal(texts[i], tokenizer.Decode(actual));
        }
    }

    [RealVocabularyFact]
    public void RealFilesHoldWhatTheyShould()
    {
        TokenizerDefinition definition = Real.Value;
        Assert.Equal((151_665, 151_387, 22), (definition.Vocabulary.Count, definition.Merges.Count, definition.AddedTokens.Count));
        Assert.Equal((151_645, 151_643, (int?)null, (bool?)false), (definition.EosId, definition.PaddingId, definition.BosId, definition.AddBos));
        Assert.Equal(TokenKind.UserDefined, definition.Vocabulary.Kind(151_657));
        Assert.Equal(TokenKind.Control, definition.Vocabulary.Kind(151_659));
        Assert.Same(ChatTemplate.Qwen25, ChatTemplate.Recognize(definition.ChatTemplate!));
        TokenizerDefinition padded = definition.WithVocabularySize(151_936);
        Assert.Equal((151_936, 151_665), (padded.Vocabulary.Count, padded.Vocabulary.UsedCount));
        Assert.Equal("[PAD151665]", padded.Vocabulary.Text(151_665));
        Assert.Equal("Ġ Ġ", padded.Merges.Text(0));
    }

    [RealVocabularyFact]
    public void RealVocabularyParsesSpecialTokens()
    {
        BpeTokenizer tokenizer = new(Real.Value);
        Assert.Equal([151_644, 872, 198, 13_048, 151_645, 198], tokenizer.Encode("<|im_start|>user\nHi<|im_end|>\n", parseSpecial: true));
        Assert.DoesNotContain(151_644, tokenizer.Encode("<|im_start|>", parseSpecial: false));
        Assert.Equal([151_657, 151_658], tokenizer.Encode("<tool_call></tool_call>", parseSpecial: false));
        Assert.Equal([151_643, 151_645, 151_662, 151_663, 151_664], tokenizer.EndOfTextIds.Order());
    }
}
