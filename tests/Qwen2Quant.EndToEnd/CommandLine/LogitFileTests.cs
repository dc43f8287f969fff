using System.Buffers.Binary;
using System.Text.Json;
using System.Text.Json.Nodes;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary><c>--save-logits</c> and <c>--logits</c>: llama-perplexity's base file on the command line.</summary>
public sealed class LogitFileTests(ITestOutputHelper print) : IDisposable
{
    private const int Window = 128, Windows = 3, Vocabulary = 2048, RecordBytes = 8 + (2 * Vocabulary);

    private static readonly string[] Measured = ["--data", "builtin:text", "--context", $"{Window}", "--chunks", $"{Windows}"];

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void FiguresFromTheFileAreThoseOfBothModels()
    {
        string candidate = Quantized(), path = _folder.File("base.kld");
        JsonElement exact = Json(["compare", Models.Tiny, candidate, .. Measured, "--save-logits", path]);
        JsonElement file = Json("compare", candidate, "--logits", path);
        JsonElement withBase = Json("compare", Models.Tiny, candidate, "--logits", path, "--data", "builtin:text");
        foreach (JsonElement found in new[] { file, withBase })
        {
            Assert.Equal((Windows * 63, Window, Windows), (found.GetProperty("tokens").GetInt32(), found.GetProperty("context").GetInt32(), found.GetProperty("chunks").GetInt32()));
            Assert.Equal(exact.GetProperty("candidate").GetRawText(), found.GetProperty("candidate").GetRawText());
            Assert.Equal(1, found.GetProperty("base").GetProperty("perplexity").GetDouble() / exact.GetProperty("base").GetProperty("perplexity").GetDouble(), 1e-4);
            Assert.Equal(exact.GetProperty("mean_kld").GetDouble(), found.GetProperty("mean_kld").GetDouble(), 2e-5);
            Assert.Equal(exact.GetProperty("kld").GetProperty("p99").GetDouble(), found.GetProperty("kld").GetProperty("p99").GetDouble(), 2e-4);
            Assert.Equal(exact.GetProperty("top_token_agreement").GetDouble(), found.GetProperty("top_token_agreement").GetDouble(), 0.011);
        }

        string alone = _folder.File("alone.kld");
        CliCommand.Succeed(["perplexity", Models.Tiny, .. Measured, "--save-logits", alone, "--threads", "1"]);
        Assert.Equal(File.ReadAllBytes(path), File.ReadAllBytes(alone));
        Assert.Equal(1, Json("compare", Models.Tiny, "--logits", path, "--chunks", "2").GetProperty("perplexity_ratio").GetDouble(), 1e-4);
    }

    /// <summary>Our file says what llama.cpp computes, position by position, within a step of the 16 bits and what two programs differ by.</summary>
    [LlamaFact]
    public void LlamaCppComputesWhatTheFileHolds()
    {
        string model = _folder.File("tiny-F32.gguf"), path = _folder.File("base.kld");
        CliCommand.Succeed("convert", Models.Tiny, "--to", "gguf", "--type", "f32", "--out", model);
        CliCommand.Succeed(["perplexity", model, .. Measured, "--save-logits", path]);
        byte[] file = File.ReadAllBytes(path);
        using LlamaModel llama = LlamaModel.Load(model, Window);
        int[] tokens = llama.Tokenize(Texts.HeldOut)[..(Window * Windows)];
        Assert.Equal(tokens, Enumerable.Range(0, tokens.Length).Select(i => BinaryPrimitives.ReadInt32LittleEndian(file.AsSpan(20 + (4 * i)))));
        int record = 20 + (4 * tokens.Length);
        Assert.Equal(record + (Windows * 63 * RecordBytes), file.Length);
        double largest = 0;
        for (int window = 0; window < Windows; window++)
        {
            float[] logits = llama.Logits(tokens.AsSpan(window * Window, Window), Window / 2).ToArray();
            for (int position = 0; position < 63; position++, record += RecordBytes)
            {
                float scale = BinaryPrimitives.ReadSingleLittleEndian(file.AsSpan(record)), least = BinaryPrimitives.ReadSingleLittleEndian(file.AsSpan(record + 4));
                float[] row = logits[(position * Vocabulary)..((position + 1) * Vocabulary)];
                double top = row.Max(), logSum = top + Math.Log(row.Sum(logit => Math.Exp(logit - top)));
                for (int id = 0; id < Vocabulary; id++)
                {
                    double stored = (scale * BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(record + 8 + (2 * id)))) + least;
                    double difference = Math.Abs(Math.Max(row[id], top - 16) - logSum - stored);
                    largest = Math.Max(largest, difference);
                }
            }
        }

        print.WriteLine($"largest difference of a log-probability: {largest:G3}");
        Assert.InRange(largest, 0, 0.02);
    }

    [Fact]
    public void FilesThatDoNotBelongAreRefused()
    {
        string candidate = Quantized(), path = _folder.File("base.kld");
        CliCommand.Succeed(["perplexity", Models.Tiny, .. Measured, "--save-logits", path]);
        byte[] whole = File.ReadAllBytes(path);
        string cut = _folder.Write("cut.kld", whole.AsSpan(0, 100_000)), magic = _folder.Write("magic.kld", [.. "_logitz_"u8, .. whole.AsSpan(8)]);
        string damaged = _folder.Write("damaged.kld", [.. whole.AsSpan(0, whole.Length / 2), .. new byte[whole.Length - (whole.Length / 2)]]);
        string text = _folder.Write("other.txt", string.Join('\n', Texts.Lines(200).Skip(20)));
        string stranger = TestCheckpoint.Write(_folder.File("stranger"), TestCheckpoint.Small), larger = TestCheckpoint.Write(_folder.File("larger"), TestCheckpoint.Small with { VocabSize = 2112 });
        ReverseVocabulary(Path.Combine(stranger, "tokenizer.json"));
        Refuses(3, "[LG-1]", "compare", candidate, "--logits", cut);
        Refuses(3, "[LG-1]", "compare", candidate, "--logits", magic);
        Refuses(3, "[LG-3]", "compare", candidate, "--logits", damaged);
        Refuses(3, "[LG-2]", "compare", candidate, "--logits", path, "--data", text);
        Refuses(3, "[LG-2]", "compare", candidate, "--logits", path, "--context", "64");
        Refuses(3, "[LG-2]", "compare", larger, "--logits", path);
        Refuses(3, "another tokenizer", "compare", stranger, "--logits", path);
        Refuses(3, "different tokens", "compare", Models.Tiny, stranger, "--logits", path);
        Refuses(3, "does not exist", "compare", candidate, "--logits", _folder.File("none.kld"));
    }

    [Theory]
    [InlineData("compare builtin:tiny", "CANDIDATE")]
    [InlineData("compare builtin:tiny builtin:tiny", "--logits FILE")]
    [InlineData("compare builtin:tiny --logits f --save-logits g", "--save-logits")]
    [InlineData("compare builtin:tiny builtin:tiny --generate 4 --prompts p --save-logits g", "--data")]
    [InlineData("compare builtin:tiny builtin:tiny --data builtin:text --force", "--save-logits")]
    [InlineData("compare builtin:tiny builtin:tiny --logits f --activations", "--activations")]
    [InlineData("compare builtin:tiny builtin:tiny --data builtin:text --save-logits f --protocol full", "--protocol")]
    [InlineData("perplexity builtin:tiny --data builtin:text --save-logits f --protocol full", "--protocol")]
    [InlineData("perplexity builtin:tiny --data builtin:text --force", "--save-logits")]
    [InlineData("compare builtin:tiny builtin:tiny --generate 4", "--prompts")]
    [InlineData("compare builtin:tiny builtin:tiny --prompts p", "--generate")]
    [InlineData("compare builtin:tiny builtin:tiny --generate 0 --prompts p", "at least 1")]
    [InlineData("compare builtin:tiny --logits f --generate 4 --prompts p", "BASE")]
    [InlineData("compare builtin:tiny builtin:tiny --generate 4 --prompts p --chunks 2", "--chunks")]
    [InlineData("compare builtin:tiny builtin:tiny --generate 4 --prompts p --fail-above mean_kld=1", "--data")]
    [InlineData("compare builtin:tiny builtin:tiny --data builtin:text --fail-below generation.identical_share=1", "--generate")]
    [InlineData("quantize builtin:tiny --to gguf:Q8_0 --out o.gguf --validate builtin:text --fail-below generation.identical_share=1", "--generate")]
    public void WrongCommandLinesGive2(string line, string named) => Refuses(2, named, line.Split(' '));

    [Fact]
    public void AnExistingFileIsKeptAndInputsAreNotWrittenTo()
    {
        string path = _folder.Write("base.kld", "precious"), model = Quantized(), text = _folder.Write("text.txt", Texts.HeldOut);
        Refuses(2, "--force", ["perplexity", Models.Tiny, .. Measured, "--save-logits", path]);
        Assert.Equal("precious", File.ReadAllText(path));
        Refuses(2, "own input", ["compare", Models.Tiny, model, .. Measured, "--save-logits", model, "--force"]);
        Refuses(2, "own input", "perplexity", Models.Tiny, "--data", text, "--chunks", "1", "--save-logits", text, "--force");
        Refuses(6, "does not exist", ["perplexity", Models.Tiny, .. Measured, "--save-logits", _folder.File("no/such/f")]);
        CliCommand.Succeed(["perplexity", Models.Tiny, .. Measured, "--save-logits", path, "--force"]);
        Assert.Equal(20 + (4 * Window * Windows) + (Windows * 63 * RecordBytes), new FileInfo(path).Length);
    }

    /// <summary>The ids of all pieces longer than a byte in reverse: the same text, other tokens.</summary>
    private static void ReverseVocabulary(string path)
    {
        JsonObject tokenizer = (JsonObject)JsonNode.Parse(File.ReadAllBytes(path))!;
        JsonObject vocabulary = (JsonObject)tokenizer["model"]!["vocab"]!;
        string[] pieces = [.. vocabulary.Select(entry => entry.Key).Where(piece => piece.Length > 1)];
        int[] ids = [.. pieces.Select(piece => vocabulary[piece]!.GetValue<int>()).Reverse()];
        for (int i = 0; i < pieces.Length; i++) vocabulary[pieces[i]] = ids[i];
        File.WriteAllText(path, tokenizer.ToJsonString());
    }

    private string Quantized()
    {
        string path = _folder.File("q.gguf");
        CliCommand.Succeed("quantize", Models.Tiny, "--to", "gguf:Q4_0", "--out", path);
        return path;
    }

    private static JsonElement Json(params string[] arguments) => CliCommand.Succeed([.. arguments, "--json"]).Json();

    private void Refuses(int exitCode, string named, params string[] arguments)
    {
        CliResult result = new CliCommand(arguments) { WorkingDirectory = _folder.Path }.Run().Expect(exitCode);
        Assert.Contains(named, result.Error, StringComparison.Ordinal);
        Assert.Equal("", result.Output);
        Assert.DoesNotContain(Directory.GetFileSystemEntries(_folder.Path), entry => entry.EndsWith(".partial", StringComparison.Ordinal));
    }
}
