using System.Diagnostics;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>One layer's attention in the shape of the 0.5B model: of whole texts, whose operations count below the diagonal only, and of one more token.</summary>
internal static class AttentionSpeed
{
    private const int Layers = 24;

    private static readonly int[] Lengths = [512, 2048, 8192, 32768];

    // Qwen2-0.5B: 14 heads of 64, 2 of keys.
    private static readonly Qwen2Config Shape = new() { HiddenSize = 896, NumAttentionHeads = 14, NumKeyValueHeads = 2, HeadDim = 64, NumHiddenLayers = 1, RopeTheta = 1e6 };

    public static IReadOnlyList<BenchmarkFigure> Run(BenchmarkOptions options, RunContext context)
    {
        AttentionTrial trial = new(Shape, context.Threads);
        List<BenchmarkFigure> figures = [];
        foreach (int length in Lengths.Where(length => length <= options.LongestText))
        {
            double seconds = LeastSeconds(() => trial.Prompt(length), 5 * options.Budget, context);
            figures.Add(new("attention", $"text-{length}.time", seconds * 1e3, "ms"));
            figures.Add(new("attention", $"text-{length}.threads-{context.Threads}", trial.Operations(length) / seconds / 1e9, "GFLOP/s"));
        }

        int cached = Math.Min(options.LongestText, 8192);
        double token = trial.Token(cached, Layers);
        figures.Add(new("attention", $"token-after-{cached}.threads-{context.Threads}", trial.BytesSeen(cached) / token / 1e9, "GB/s"));
        return figures;
    }

    // The first run compiles and warms up; a long text does so as it goes.
    private static double LeastSeconds(Func<double> run, TimeSpan budget, RunContext context)
    {
        Stopwatch total = Stopwatch.StartNew();
        double least = double.PositiveInfinity;
        do
        {
            context.Cancellation.ThrowIfCancellationRequested();
            least = Math.Min(least, run());
        }
        while (total.Elapsed < budget);
        return least;
    }
}
