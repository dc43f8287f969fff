using System.Numerics.Tensors;
using System.Text;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>The wrapper drives llama.cpp as its own tools do, on a real small model.</summary>
public sealed class LlamaModelTests
{
    private static string SmallModel => SharedData.Path("models/small-qwen2-Q8_0.gguf");

    private static string HeldOut => File.ReadAllText(SharedData.Path("data/text/heldout.txt"));

    [LlamaFact(Shared = true)]
    public void TokenizesThereAndBack()
    {
        using LlamaModel model = LlamaModel.Load(SmallModel);
        Assert.Equal("qwen2", model.Metadata("general.architecture"));
        Assert.Null(model.Metadata("no.such.key"));
        Assert.Equal(24576, model.VocabularySize);

        const string text = "It's 1859: “café” — 100 %\r\n\t<|im_end|> 🙂";
        int[] plain = model.Tokenize(text), parsed = model.Tokenize(text, parseSpecial: true);
        Assert.True(parsed.Length < plain.Length);
        foreach (int[] tokens in new[] { plain, parsed })
        {
            Assert.Equal(text, Encoding.UTF8.GetString([.. tokens.SelectMany(model.Piece)]));
        }
    }

    /// <summary>The anchor is a perplexity that other software measured on the BF16 weights: 23.742, all positions but the first, 8 windows.</summary>
    [LlamaFact(Shared = true)]
    public void PerplexityIsTheKnownOneAndScoresTheSecondHalf()
    {
        const int windows = 8, halfWindows = 2;
        using LlamaModel model = LlamaModel.Load(SmallModel);
        int[] tokens = model.Tokenize(HeldOut);
        double whole = 0, half = 0;
        for (int window = 0; window < windows; window++)
        {
            int[] ids = tokens[(window * 512)..((window + 1) * 512)];
            ReadOnlySpan<float> logits = model.Logits(ids);
            for (int position = 0; position < 511; position++)
            {
                double loss = Loss(logits.Slice(position * model.VocabularySize, model.VocabularySize), ids[position + 1]);
                whole += loss;
                if (window < halfWindows && position >= 256) half += loss;
            }
        }

        Assert.Equal(1, Math.Exp(whole / (windows * 511)) / 23.742, 0.01);
        LlamaPerplexity measured = model.Perplexity(HeldOut, halfWindows);
        Assert.Equal((halfWindows, halfWindows * 255), (measured.Chunks, measured.ScoredTokens));
        Assert.Equal(1, measured.Value / Math.Exp(half / (halfWindows * 255)), 1e-4);
        Assert.InRange(measured.StandardError / measured.Value, 0.02, 0.2);
    }

    [LlamaFact(Shared = true)]
    public void GreedyTextIsWhatWholeWindowsPredict()
    {
        using LlamaModel model = LlamaModel.Load(SmallModel);
        int[] prompt = model.Tokenize("The capital of France is");
        int[] generated = model.GenerateGreedy(prompt, 12);
        Assert.Equal(12, generated.Length);
        ReadOnlySpan<float> logits = model.Logits([.. prompt, .. generated], prompt.Length - 1);
        for (int i = 0; i < generated.Length; i++)
        {
            Assert.Equal(generated[i], TensorPrimitives.IndexOfMax(logits.Slice(i * model.VocabularySize, model.VocabularySize)));
        }
    }

    [LlamaFact(Shared = true)]
    public void QuantizesWholeModels()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("qwen2quant-");
        try
        {
            string mixed = Path.Combine(folder.FullName, "mixed.gguf"), pure = Path.Combine(folder.FullName, "pure.gguf");
            string refused = Assert.Throws<InvalidOperationException>(() => LlamaQuantizer.Quantize(SmallModel, mixed, "Q4_0")).Message;
            Assert.Contains("requantizing", refused, StringComparison.Ordinal);

            const int q4_0 = 2, q8_0 = 8;
            LlamaQuantizeOptions requantize = new() { AllowRequantize = true };
            Assert.True(LlamaQuantizer.Quantize(SmallModel, mixed, "q4_0", requantize with { TokenEmbeddingType = q8_0 }) > TimeSpan.Zero);
            LlamaQuantizer.Quantize(SmallModel, pure, "Q4_0", requantize with { Pure = true, TokenEmbeddingType = q4_0, TensorTypes = [("ffn_down", q8_0)] });
            long original = new FileInfo(SmallModel).Length;
            Assert.InRange(new FileInfo(mixed).Length, original / 2, original * 7 / 10);
            Assert.NotEqual(new FileInfo(mixed).Length, new FileInfo(pure).Length);

            using LlamaModel model = LlamaModel.Load(mixed);
            Assert.Equal("2", model.Metadata("general.file_type"));
            Assert.InRange(model.Perplexity(HeldOut, 2).Value, 10, 100);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [LlamaFact]
    public void AFileThatIsNotGgufIsRefusedWithItsReason()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, "no model");
            InvalidOperationException error = Assert.Throws<InvalidOperationException>(() => LlamaModel.Load(path));
            Assert.Contains("magic", error.Message, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static double Loss(ReadOnlySpan<float> logits, int token)
    {
        double greatest = TensorPrimitives.Max(logits), sum = 0;
        foreach (float logit in logits) sum += Math.Exp(logit - greatest);
        return Math.Log(sum) + greatest - logits[token];
    }
}
