using System.Buffers;
using System.Text;
using System.Text.Json.Nodes;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

/// <summary>For every rule inputs that break it alone, each with the input beside it that just satisfies it.</summary>
public class TokenizerRulesTests
{
    private delegate void Edit(JsonNode root);

    private sealed record Case(string Name, Edit Breaks, string Says, Edit? Satisfies = null);

    private static readonly Case[] Cases =
    [
        new("hole in the ids", root => Vocab(root)["zz"] = 300, "hole", root => Vocab(root)["zz"] = 261),
        new("one id twice", root => Vocab(root)["zz"] = 5, "two tokens have id 5", root => Vocab(root)["zz"] = 261),
        new("negative id", root => Vocab(root)["zz"] = -1, "an id, 0 or above"),
        new("id not a number", root => Vocab(root)["zz"] = "7", "an id, 0 or above"),
        new("added token takes an id", root => Added(root)[0]!["id"] = 3, "two tokens have id 3", root => Added(root)[0]!["id"] = 260),
        new("token under two ids", root => Added(root)[0]!["content"] = "th", "same token", root => Added(root)[0]!["content"] = "<t>"),
        new("added token without content", root => Added(root)[0]!["content"] = "", "lacks its id or its content"),
        new("added token that strips", root => Added(root)[0]!["lstrip"] = true, "lstrip", root => Added(root)[0]!["lstrip"] = false),
        new("merge of unknown tokens", root => Merges(root).Add("q z"), "vocabulary lacks: found qz", root => Merges(root).Add("h e")),
        new("merge of one token", root => Merges(root).Add("the"), "not two tokens"),
        new("merge of three tokens", root => Merges(root).Add("t h e"), "not two tokens"),
        new("pair of one token", root => Merges(root).Add(new JsonArray("h")), "does not have two tokens", root => Merges(root).Add(new JsonArray("h", "e"))),
        new("pair of three tokens", root => Merges(root).Add(new JsonArray("t", "h", "e")), "does not have two tokens"),
        new("pair of a number", root => Merges(root).Add(new JsonArray("t", 1)), "two strings"),
        new("WordPiece", root => root["model"]!["type"] = "WordPiece", "WordPiece", root => root["model"]!["type"] = "BPE"),
        new("Unigram", root => { root["model"]!.AsObject().Remove("type"); root["model"]!["vocab"] = new JsonArray(); }, "Unigram", root => root["model"]!.AsObject().Remove("type")),
        new("byte fallback", root => root["model"]!["byte_fallback"] = true, "byte_fallback", root => root["model"]!["byte_fallback"] = false),
        new("ignored merges", root => root["model"]!["ignore_merges"] = true, "ignore_merges", root => root["model"]!["ignore_merges"] = false),
        new("subword prefix", root => root["model"]!["continuing_subword_prefix"] = "##", "continuing_subword_prefix", root => root["model"]!["continuing_subword_prefix"] = null),
        new("dropout", root => root["model"]!["dropout"] = 0.1, "dropout", root => root["model"]!["dropout"] = 0.0),
        new("no merges", root => root["model"]!.AsObject().Remove("merges"), "no 'merges'"),
        new("no model", root => root.AsObject().Remove("model"), "no model"),
        new("empty vocabulary", root => { root["model"]!["vocab"] = new JsonObject(); root["model"]!["merges"] = new JsonArray(); root["added_tokens"] = new JsonArray(); }, "empty"),
        new("other normalizer", root => root["normalizer"] = new JsonObject { ["type"] = "NFKC" }, "NFKC", root => root["normalizer"] = null),
        new("no pre-tokenizer", root => root["pre_tokenizer"] = null, "pre-tokenizer"),
        new("other pre-tokenizer", root => root["pre_tokenizer"] = new JsonObject { ["type"] = "Metaspace", ["add_prefix_space"] = true }, "Metaspace"),
        new("other expression", root => Split(root)["pattern"]!["Regex"] = @"\p{N}{1,3}", @"\\p{N}{1,3}", root => Split(root)["pattern"]!["Regex"] = PreTokenizers.Qwen2Expression),
        new("other behaviour", root => Split(root)["behavior"] = "MergedWithNext", "MergedWithNext", root => { Split(root)["behavior"] = "Removed"; Split(root)["invert"] = true; }),
        new("GPT-2's expression", root => root["pre_tokenizer"]!["pretokenizers"]![1]!["use_regex"] = true, "use_regex"),
        new("other post-processor", root => root["post_processor"] = new JsonObject { ["type"] = "BertProcessing" }, "BertProcessing", root => root["post_processor"] = null),
        new("token after the text", root => root["post_processor"] = Template("Sequence", "SpecialToken"), "Sequence, SpecialToken", root => root["post_processor"] = Template("SpecialToken", "Sequence")),
    ];

    [Fact]
    public void EveryCaseIsRefusedAndItsNeighbourIsNot()
    {
        foreach (Case @case in Cases)
        {
            QuantException error = Assert.Throws<QuantException>(() => Parse(@case.Breaks));
            Assert.True(error.Rule == TokenizerRules.Tokenizer && error.Path == "tokenizer.json", $"{@case.Name}: {error.Message}");
            Assert.True(error.Message.Contains(@case.Says.Replace(@"\\", @"\", StringComparison.Ordinal), StringComparison.Ordinal), $"{@case.Name}: {error.Message}");
            Assert.True(Parse(@case.Satisfies ?? (_ => { })).Vocabulary.Count >= 259, @case.Name);
        }

        Assert.Equal(["HF-75"], TokenizerRules.All.Select(rule => rule.Id));
    }

    [Theory]
    [InlineData("{\"version\": 1, \"version\": 2}", "two members of one name")]
    [InlineData("{\"x\": [{\"a\": 1, \"a\": 2}]}", "two members of one name")]
    [InlineData("{\"version\": 1", "not valid JSON")]
    [InlineData("[]", "an object")]
    [InlineData("{} x", "not valid JSON")]
    [InlineData("{/**/}", "not valid JSON")]
    [InlineData("{\"\\ud800\": 1}", "not valid JSON")]
    [InlineData("", "not valid JSON")]
    public void MalformedJsonIsRefused(string json, string says)
    {
        QuantException error = Assert.Throws<QuantException>(() => TokenizerJson.Parse(Encoding.UTF8.GetBytes(json)));
        Assert.Equal(TokenizerRules.Tokenizer, error.Rule);
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void DepthAndSizeAreBounded()
    {
        string deep = $"{{\"x\": {new string('[', 40)}{new string(']', 40)}}}";
        Assert.Equal(TokenizerRules.Tokenizer, Assert.Throws<QuantException>(() => TokenizerJson.Parse(Encoding.UTF8.GetBytes(deep))).Rule);
        Assert.Contains("too large", Assert.Throws<QuantException>(() => TokenizerJson.Parse(new byte[100], limits: new Limits { JsonFileBytes = 99 })).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ADuplicateTokenInTheVocabularyIsRefused()
    {
        string json = Root().ToJsonString();
        string twice = json.Replace("\"vocab\":{", "\"vocab\":{\"th\":261,", StringComparison.Ordinal);
        Assert.NotEqual(json, twice);
        Assert.Contains("same token", Assert.Throws<QuantException>(() => TokenizerJson.Parse(Encoding.UTF8.GetBytes(twice))).Message, StringComparison.Ordinal);
        Assert.Equal(261, TokenizerJson.Parse(Encoding.UTF8.GetBytes(json)).Vocabulary.Count);
    }

    [Fact]
    public void OtherFilesAndUsesAreRefusedByName()
    {
        TokenizerConfigJson Config(string json) => TokenizerConfigJson.Parse(Encoding.UTF8.GetBytes(json));
        byte[] vocabulary = TokenizerData.Read("tiny/vocab.json");
        byte[] merges = TokenizerData.Read("tiny/merges.txt");
        byte[] tokenizer = TokenizerData.Read("tiny/tokenizer.json");
        (string Says, Action Act)[] cases =
        [
            ("GPT2Tokenizer", () => VocabMerges.Parse(vocabulary, merges, Config("{\"tokenizer_class\": \"GPT2Tokenizer\"}"))),
            ("found none", () => VocabMerges.Parse(vocabulary, merges, Config("{}"))),
            ("not two tokens", () => VocabMerges.Parse(vocabulary, "#version: 0.2\nt h\nth\n"u8, Config("{\"tokenizer_class\": \"Qwen2Tokenizer\"}"))),
            ("not an id", () => Config("{\"added_tokens_decoder\": {\"x\": {\"content\": \"y\"}}}")),
            ("a string", () => Config("{\"eos_token\": 5}")),
            ("true or false", () => Config("{\"add_bos_token\": \"no\"}")),
            ("lacks its name or text", () => Config("{\"chat_template\": [{\"name\": \"default\"}]}")),
            ("eos_token is a token that the vocabulary lacks", () => TokenizerJson.Parse(tokenizer, Config("{\"eos_token\": \"<eos>\"}"))),
            ("two tokens have id 2021", () => TokenizerJson.Parse(tokenizer, Config("{\"added_tokens_decoder\": {\"2021\": {\"content\": \"y\"}}}"))),
            ("larger than the embedding", () => TokenizerData.Tiny.WithVocabularySize(2023)),
            ("found gpt-2", () => PreTokenizers.Require("model.gguf", "gpt-2")),
            ("found none", () => PreTokenizers.Require("model.gguf", null)),
            ("byte 0x01 has no token", () => _ = new BpeTokenizer(WithoutByteOne())),
        ];
        foreach ((string says, Action act) in cases)
        {
            QuantException error = Assert.Throws<QuantException>(act);
            Assert.Equal(TokenizerRules.Tokenizer, error.Rule);
            Assert.Contains(says, error.Message, StringComparison.Ordinal);
        }
    }

    private static TokenizerDefinition WithoutByteOne()
    {
        TokenizerDefinitionBuilder builder = new("x");
        for (int id = 0; id < 256; id++) builder.AddToken(id, id == 1 ? "other" : ByteAlphabet.Spell((byte)id).ToString());
        return builder.Build(PreTokenizers.Qwen2);
    }

    private static TokenizerDefinition Parse(Edit edit)
    {
        JsonNode root = Root();
        edit(root);
        return TokenizerJson.Parse(Encoding.UTF8.GetBytes(root.ToJsonString()));
    }

    /// <summary>256 bytes, th, the, he, "th e" under id 258, one added token: 0 to 260.</summary>
    private static JsonNode Root()
    {
        TokenizerDefinitionBuilder builder = new("x");
        for (int id = 0; id < 256; id++) builder.AddToken(id, ByteAlphabet.Spell((byte)id).ToString());
        string[] words = ["th", "the", "he", "in"];
        for (int i = 0; i < words.Length; i++) builder.AddToken(256 + i, words[i]);
        builder.AddAdded(new AddedToken(260, "<|endoftext|>", IsSpecial: true));
        builder.AddMerge("t h");
        builder.AddMerge("th e");
        ArrayBufferWriter<byte> output = new();
        TokenizerJson.Write(builder.Build(PreTokenizers.Qwen2), output);
        return JsonNode.Parse(output.WrittenSpan)!;
    }

    private static JsonObject Vocab(JsonNode root) => root["model"]!["vocab"]!.AsObject();

    private static JsonArray Merges(JsonNode root) => root["model"]!["merges"]!.AsArray();

    private static JsonArray Added(JsonNode root) => root["added_tokens"]!.AsArray();

    private static JsonNode Split(JsonNode root) => root["pre_tokenizer"]!["pretokenizers"]![0]!;

    private static JsonObject Template(params string[] kinds) => new()
    {
        ["type"] = "TemplateProcessing",
        ["single"] = new JsonArray([.. kinds.Select(kind => new JsonObject { [kind] = new JsonObject { ["id"] = "A", ["type_id"] = 0 } })]),
    };
}
