using System.Buffers;
using System.Text;
using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

public class TokenizerFilesTests
{
    [Fact]
    public void BothFormatsGiveTheSameTokenizer()
    {
        TokenizerConfigJson config = TokenizerConfigJson.Parse(TokenizerData.Read("tiny/tokenizer_config.json"));
        TokenizerDefinition pair = VocabMerges.Parse(TokenizerData.Read("tiny/vocab.json"), TokenizerData.Read("tiny/merges.txt"), config);
        AssertSame(TokenizerData.Tiny, pair);
        Assert.Equal((2021, 2021, (int?)null, (int?)null), (pair.EosId, pair.PaddingId, pair.BosId, pair.UnknownId));
        Assert.Equal(TokenizerData.Tiny.ChatTemplate, pair.ChatTemplate);
    }

    [Fact]
    public void AddedTokensJsonFillsWhatTheConfigLeavesOut()
    {
        TokenizerConfigJson config = TokenizerConfigJson.Parse("{\"tokenizer_class\": \"Qwen2TokenizerFast\"}"u8);
        byte[] added = "{\"<|endoftext|>\": 2021, \"<|im_start|>\": 2022, \"<|im_end|>\": 2023, \"<tool_call>\": 2024}"u8.ToArray();
        TokenizerDefinition definition = VocabMerges.Parse(TokenizerData.Read("tiny/vocab.json"), TokenizerData.Read("tiny/merges.txt"), config, added);
        Assert.Equal(TokenKind.Control, definition.Vocabulary.Kind(2022));
        Assert.Equal(TokenKind.UserDefined, definition.Vocabulary.Kind(2024));
    }

    [Fact]
    public void WrittenFilesReadBackAsTheSame()
    {
        TokenizerDefinition padded = TokenizerData.Tiny.WithVocabularySize(2048);
        byte[] json = Written(output => TokenizerJson.Write(padded, output));
        byte[] configJson = Written(output => TokenizerConfigJson.Write(padded, 32768, output));
        TokenizerConfigJson config = TokenizerConfigJson.Parse(configJson);
        TokenizerDefinition read = TokenizerJson.Parse(json, config);
        AssertSame(TokenizerData.Tiny, read);
        Assert.Equal(TokenizerData.Tiny.ChatTemplate, read.ChatTemplate);
        Assert.Equal((2021, 2021), (read.EosId, read.PaddingId));
        AssertSame(read, VocabMerges.Parse(Written(output => VocabMerges.WriteVocabulary(padded, output)), Written(output => VocabMerges.WriteMerges(padded, output)), config));
        Assert.Equal(TokenizerData.Read("tiny/merges.txt"), Written(output => VocabMerges.WriteMerges(padded, output)));
        AssertSameJson(TokenizerData.Read("tiny/tokenizer.json"), json);
        AssertSameJson(TokenizerData.Read("tiny/vocab.json"), Written(output => VocabMerges.WriteVocabulary(padded, output)));
    }

    [Fact]
    public void ADefinitionFromGgufListsGivesTheSameFiles()
    {
        TokenizerDefinition padded = TokenizerData.Tiny.WithVocabularySize(2048);
        TokenizerDefinitionBuilder builder = new("model.gguf");
        for (int id = 0; id < 2048; id++)
        {
            // older converters typed padding as user-defined
            TokenKind kind = padded.Vocabulary.Kind(id);
            builder.AddToken(id, padded.Vocabulary.Utf8(id), kind == TokenKind.Unused && id % 2 == 0 ? TokenKind.UserDefined : kind);
        }

        for (int rank = 0; rank < padded.Merges.Count; rank++) builder.AddMerge(padded.Merges.Text(rank));
        TokenizerDefinition read = builder.Build(PreTokenizers.Qwen2) with { EosId = 2021, PaddingId = 2021, BosId = 2021, ChatTemplate = "x" };
        Assert.Equal(2024, read.Vocabulary.UsedCount);
        Assert.Equal([("eos", 2021), ("padding", 2021), ("bos", 2021)], read.SpecialIds);
        AssertSame(TokenizerData.Tiny, TokenizerJson.Parse(Written(output => TokenizerJson.Write(read, output))));
        AssertSame(TokenizerData.Tiny, read.WithVocabularySize(2024));
        Assert.Null(TokenizerConfigJson.Parse(Written(output => TokenizerConfigJson.Write(read, 32768, output))).BosToken);
    }

    [Fact]
    public void ADistilledModelKeepsItsLeadingToken()
    {
        TokenizerDefinitionBuilder builder = BpeTokenizerTests.TinyBuilder();
        builder.AddAdded(new AddedToken(2024, "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>", IsSpecial: true));
        TokenizerDefinition distilled = builder.Build(PreTokenizers.DeepSeekR1Qwen) with { BosId = 2024, EosId = 2021, AddBos = true };
        TokenizerConfigJson config = TokenizerConfigJson.Parse(Written(output => TokenizerConfigJson.Write(distilled, 100, output)));
        TokenizerDefinition read = TokenizerJson.Parse(Written(output => TokenizerJson.Write(distilled, output)), config);
        Assert.Equal((PreTokenizers.DeepSeekR1Qwen, true, 2024), (read.PreTokenizer, read.AddBos, read.BosId));
        Assert.Equal(2024, new BpeTokenizer(read).LeadingId);
        Assert.Null(TokenizerData.TinyTokenizer.LeadingId);
    }

    [Fact]
    public void NamedTemplatesAndFallbackIdsAreKept()
    {
        TokenizerConfigJson config = TokenizerConfigJson.Parse(
            "{\"eos_token\": {\"content\": \"<|im_end|>\", \"lstrip\": false}, \"chat_template\": [{\"name\": \"default\", \"template\": \"d\"}, {\"name\": \"rag\", \"template\": \"r\"}], \"add_bos_token\": false}"u8);
        TokenizerDefinition definition = TokenizerJson.Parse(TokenizerData.Read("tiny/tokenizer.json"), config);
        Assert.Equal(("d", 2023, false), (definition.ChatTemplate, definition.EosId, definition.AddBos));
        Assert.Equal([new("rag", "r")], definition.NamedChatTemplates);
        TokenizerDefinition filled = definition.WithFallbackIds(eosId: 5, paddingId: 2021, bosId: 9999);
        Assert.Equal((2023, 2021, (int?)null), (filled.EosId, filled.PaddingId, filled.BosId));
        TokenizerConfigJson again = TokenizerConfigJson.Parse(Written(output => TokenizerConfigJson.Write(definition, 1, output)));
        Assert.Equal(("d", 1), (again.ChatTemplate, again.NamedChatTemplates.Count));
    }

    [Fact]
    public void AFolderIsReadFromWhatItHas()
    {
        string folder = Directory.CreateTempSubdirectory("tokenizer").FullName;
        try
        {
            QuantException missing = Assert.Throws<QuantException>(() => TokenizerFolder.Load(DiskFileLayer.Instance, folder));
            Assert.Equal(TokenizerRules.Tokenizer, missing.Rule);
            Copy("vocab.json");
            Assert.Contains("merges.txt", Assert.Throws<QuantException>(() => TokenizerFolder.Load(DiskFileLayer.Instance, folder)).Message, StringComparison.Ordinal);
            Copy("merges.txt");
            Assert.Contains("tokenizer_config.json", Assert.Throws<QuantException>(() => TokenizerFolder.Load(DiskFileLayer.Instance, folder)).Message, StringComparison.Ordinal);
            Copy("tokenizer_config.json");
            AssertSame(TokenizerData.Tiny, TokenizerFolder.Load(DiskFileLayer.Instance, folder));
            Copy("tokenizer.json");
            File.Delete(Path.Combine(folder, "vocab.json"));
            File.WriteAllText(Path.Combine(folder, "chat_template.json"), "{\"chat_template\": \"from json\"}");
            Assert.Equal("from json", TokenizerFolder.Load(DiskFileLayer.Instance, folder).ChatTemplate);
            File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), "from jinja");
            TokenizerDefinition definition = TokenizerFolder.Load(DiskFileLayer.Instance, folder);
            Assert.Equal(("from jinja", 2021), (definition.ChatTemplate, definition.EosId));
            AssertSame(TokenizerData.Tiny, definition);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }

        void Copy(string name) => File.Copy(Path.Combine(TokenizerData.Folder, "tiny", name), Path.Combine(folder, name));
    }

    private static void AssertSame(TokenizerDefinition expected, TokenizerDefinition actual)
    {
        Assert.Equal(expected.Vocabulary.Count, actual.Vocabulary.Count);
        for (int id = 0; id < expected.Vocabulary.Count; id++)
        {
            Assert.True(expected.Vocabulary.Utf8(id).SequenceEqual(actual.Vocabulary.Utf8(id)));
            Assert.Equal(expected.Vocabulary.Kind(id), actual.Vocabulary.Kind(id));
        }

        Assert.True(expected.Merges.Ranked.SequenceEqual(actual.Merges.Ranked));
        Assert.Equal(expected.AddedTokens, actual.AddedTokens);
        Assert.Equal((expected.PreTokenizer, expected.NormalizesToNfc), (actual.PreTokenizer, actual.NormalizesToNfc));
    }

    private static void AssertSameJson(byte[] expected, byte[] actual)
    {
        using JsonDocument left = JsonDocument.Parse(expected);
        using JsonDocument right = JsonDocument.Parse(actual);
        Assert.True(JsonElement.DeepEquals(left.RootElement, right.RootElement), Encoding.UTF8.GetString(actual.AsSpan(0, Math.Min(actual.Length, 2000))));
    }

    private static byte[] Written(Action<IBufferWriter<byte>> write)
    {
        ArrayBufferWriter<byte> output = new();
        write(output);
        return output.WrittenSpan.ToArray();
    }
}
