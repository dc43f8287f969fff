using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Benchmarks;

/// <summary>
/// Tokens a second of a prompt (without logits, as llama-bench counts it) and of generation (greedy, with logits), ours and llama.cpp's on the same file,
/// in turn; the best of all repetitions of each.
/// </summary>
public static class ForwardCommand
{
    public static void Run(CommandArguments arguments)
    {
        int tokenCount = arguments.Number("--tokens", 512, 1);
        int generated = arguments.Number("--generate", 32, 0);
        int repeats = arguments.Number("--repeats", 4, 1);
        int threads = arguments.Number("--threads", Environment.ProcessorCount, 1);
        bool alone = arguments.Flag("--alone");
        bool exact = arguments.Flag("--exact");
        string[] paths = arguments.Finish(1)[0].Split(',');
        Console.WriteLine($"prompt of {tokenCount} tokens, then {generated} generated, {threads} threads, best of {repeats}");
        Console.WriteLine("| file | prompt, tokens/s | llama.cpp | ratio | generation | llama.cpp | ratio |\n|---|---|---|---|---|---|---|");
        foreach (string path in paths)
        {
            RunContext context = new() { Threads = threads };
            using Checkpoint checkpoint = Checkpoint.Open(path, context);
            Qwen2Model ours = Qwen2Model.Load(checkpoint.Config, checkpoint.Tensors, new ForwardOptions { Threads = threads, Exact = exact });
            using LlamaModel? theirs = alone ? null : LlamaModel.Load(path, tokenCount + generated, threads);
            Random random = new(1);
            int[] prompt = [.. Enumerable.Range(0, tokenCount).Select(_ => random.Next(Math.Min(1000, ours.Config.VocabSize)))];
            KvCache cache = ours.NewCache(tokenCount + generated + 1);
            float[] hidden = new float[tokenCount * ours.Config.HiddenSize];
            float[] logits = new float[ours.Config.VocabSize];
            double[] best = [0, 0, 0, 0];
            for (int repeat = 0; repeat < repeats; repeat++)
            {
                best[0] = Math.Max(best[0], Rate(tokenCount, () =>
                {
                    cache.Truncate(0);
                    ours.Forward(prompt, cache, hidden);
                }));
                best[2] = Math.Max(best[2], Rate(generated, () =>
                {
                    for (int i = 0; i < generated; i++)
                    {
                        ours.Forward([prompt[i % tokenCount]], cache, hidden);
                        ours.Logits(hidden, 1, logits);
                    }
                }));
                if (theirs is null) continue;
                best[1] = Math.Max(best[1], Rate(tokenCount, () => theirs.Prompt(prompt)));
                best[3] = Math.Max(best[3], Rate(generated, () =>
                {
                    for (int i = 0; i < generated; i++) theirs.Continue(prompt[i % tokenCount], tokenCount + i);
                }));
            }

            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"| {Path.GetFileName(path)} | {best[0]:F1} | {best[1]:F1} | {best[0] / best[1]:F2} | {best[2]:F1} | {best[3]:F1} | {best[2] / best[3]:F2} |"));
        }
    }

    private static double Rate(int count, Action action)
    {
        long start = Stopwatch.GetTimestamp();
        action();
        return count / Stopwatch.GetElapsedTime(start).TotalSeconds;
    }
}
