using System.Diagnostics;
using System.Globalization;
using System.Text;
using Qwen2Quant.Core.Files;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Benchmarks;

/// <summary>Tokens per second of the byte-level BPE on one thread, the best of several runs, each with a tokenizer whose word cache is empty.</summary>
public static class TokenizerCommand
{
    private const int Runs = 5;
    private const int MixedRepeats = 2000;

    /// <summary>Languages, code, numbers and symbols in turn; the number makes each repetition's words differ.</summary>
    private const string Mixed =
        "Der Größenwahn überwältigt {0} Straßenkünstler. 机器学习模型的量化可以显著减少内存占用,编号{0}。 Привет, мир номер {0}! " +
        "def f_{0}(x: int) -> list[float]:\n    return [math.sqrt(i) * 1e-{0} for i in range(x)]\n 日本語のテキスト{0}番 🙂🚀 \t{{\"key_{0}\": [1, 2.5, null]}}\r\n";

    public static void Run(CommandArguments arguments)
    {
        string? given = arguments.Text("--tokenizer");
        arguments.Finish(0);
        string folder = given ?? InteropPackages.Qwen25Tokenizer
            ?? throw new InvalidOperationException("Qwen2.5's tokenizer is not installed: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop, or pass --tokenizer");
        long start = Stopwatch.GetTimestamp();
        TokenizerDefinition definition = TokenizerFolder.Load(DiskFileLayer.Instance, folder);
        _ = new BpeTokenizer(definition);
        double load = Stopwatch.GetElapsedTime(start).TotalSeconds;
        StringBuilder mixed = new();
        for (int i = 0; i < MixedRepeats; i++) mixed.AppendFormat(CultureInfo.InvariantCulture, Mixed, i);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{{\"load_seconds\": {load:F3}, {Measure("prose", definition, Corpora.Read(Corpora.Text))}, {Measure("mixed", definition, mixed.ToString())}}}"));
    }

    private static string Measure(string name, TokenizerDefinition definition, string text)
    {
        int tokenCount = 0;
        double best = double.PositiveInfinity;
        for (int run = 0; run < Runs; run++)
        {
            BpeTokenizer tokenizer = new(definition);
            long start = Stopwatch.GetTimestamp();
            tokenCount = tokenizer.Encode(text, parseSpecial: false).Length;
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }

        return string.Create(CultureInfo.InvariantCulture, $"\"{name}\": {{\"tokens\": {tokenCount}, \"seconds\": {best:F4}, \"tokens_per_second\": {tokenCount / best:F0}}}");
    }
}
