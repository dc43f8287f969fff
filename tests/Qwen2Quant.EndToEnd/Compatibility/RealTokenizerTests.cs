using System.Globalization;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>Qwen2.5's own tokenizer through a conversion: llama.cpp and this program read the same tokens out of the file.</summary>
public sealed class RealTokenizerTests : IDisposable
{
    /// <summary>Rows of the embedding of the published models; the tokenizer fills fewer, the rest is padding.</summary>
    private const int EmbeddingRows = 151_936;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Qwen25TokenizerFact]
    public void GoldenStringsKeepTheirIds()
    {
        string model = Convert();
        (string Text, string Ids)[] golden = ReadGolden();
        Assert.Equal(46, golden.Length);
        using Checkpoint checkpoint = Models.Open(model);
        Assert.Equal(EmbeddingRows, checkpoint.Config.VocabSize);
        BpeTokenizer tokenizer = new(checkpoint.Tokenizer);
        foreach ((string text, string ids) in golden) Assert.Equal(ids, Join(tokenizer.Encode(text, parseSpecial: false)));

        (string Text, string Ids) longest = golden.MaxBy(row => row.Text.Length);
        CliResult printed = new CliCommand("tokenize", model, "-", "--json") { Input = longest.Text }.Run().Expect(0);
        Assert.Equal(longest.Ids, Join(printed.Json().GetProperty("tokens").EnumerateArray().Select(token => token.GetProperty("id").GetInt32())));

        if (InteropPackages.LlamaLibraries is null) return;
        using LlamaModel llama = LlamaModel.Load(model, contextLength: 64);
        Assert.Equal(EmbeddingRows, llama.VocabularySize);
        foreach ((string text, string ids) in golden) Assert.Equal(ids, Join(llama.Tokenize(text)));
        const string chat = "<|im_start|>user\nHi<|im_end|>\n";
        Assert.Equal(llama.Tokenize(chat, parseSpecial: true), tokenizer.Encode(chat, parseSpecial: true));
    }

    private string Convert()
    {
        Qwen2Config config = TestCheckpoint.Small with { VocabSize = EmbeddingRows, NumHiddenLayers = 1, MaxWindowLayers = 1, BosTokenId = 151_643, EosTokenIds = [151_645] };
        string source = TestCheckpoint.Write(_folder.File("model"), config);
        foreach (string name in new[] { "tokenizer.json", "tokenizer_config.json" })
        {
            File.Copy(Path.Combine(InteropPackages.Qwen25Tokenizer!, name), Path.Combine(source, name), overwrite: true);
        }

        File.Delete(Path.Combine(source, "generation_config.json"));
        string output = _folder.File("model.gguf");
        CliCommand.Succeed("convert", source, "--to", "gguf", "--out", output);
        return output;
    }

    /// <summary>llama.cpp's vocabulary test of Qwen2: texts between separators, a line of ids for each.</summary>
    private static (string Text, string Ids)[] ReadGolden()
    {
        string folder = Path.Combine(Repository.Root, "tests", "Qwen2Quant.Tests", "Tokenization", "Data");
        string[] texts = File.ReadAllText(Path.Combine(folder, "qwen2.inp")).Split("\n__ggml_vocab_test__\n");
        string[] ids = File.ReadAllText(Path.Combine(folder, "qwen2.out")).TrimEnd('\n').Split('\n');
        return [.. texts.Zip(ids, (text, line) => (text, line.Trim()))];
    }

    private static string Join(IEnumerable<int> ids) => string.Join(' ', ids.Select(id => id.ToString(CultureInfo.InvariantCulture)));
}
