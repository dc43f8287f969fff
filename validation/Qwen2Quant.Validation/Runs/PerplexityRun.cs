using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Validation.Numerics;

namespace Qwen2Quant.Validation;

/// <summary>
/// Perplexity as llama-perplexity computes it: for each scored position m = the largest logit, S = sum of exp(logit - m)
/// over the whole vocabulary (single precision, summed in double), loss = log S - (logit of the next token - m).
/// Losses are added in the order of the text, so the result does not depend on the number of threads.
/// </summary>
public static class PerplexityRun
{
    /// <summary>Scores the windows of <paramref name="plan"/>.</summary>
    /// <exception cref="QuantException">Numeric: logits are not finite (window and position are named). InvalidInput: tokens outside the vocabulary.</exception>
    /// <exception cref="OperationCanceledException">Between two windows.</exception>
    public static PerplexityResult Run(ILogitModel model, WindowPlan plan, RunOptions options, CancellationToken cancellation = default)
    {
        Stopwatch clock = Stopwatch.StartNew();
        using WindowModel windows = new(model, plan, options, "model");
        windows.RunLayers(options.Progress, $"{options.Title}, layer by layer", cancellation);
        double[] losses = new double[windows.RowsPerChunk];
        MeanAccumulator total = new();
        ParallelOptions parallel = new() { MaxDegreeOfParallelism = options.Threads };
        using IProgressTask progress = options.Progress.Start(options.Title, (long)plan.WindowCount * plan.Context, "tokens");
        for (int window = 0; window < plan.WindowCount; window++)
        {
            cancellation.ThrowIfCancellationRequested();
            windows.Forward(window);
            for (int scored = 0; scored < plan.ScoredPerWindow; scored += windows.RowsPerChunk)
            {
                int firstPosition = plan.FirstScored + scored;
                int rowCount = Math.Min(windows.RowsPerChunk, plan.ScoredPerWindow - scored);
                int index = window;
                windows.ComputeRows(firstPosition, rowCount);
                Parallel.For(0, rowCount, parallel, row =>
                    losses[row] = Loss(windows.Row(row), plan.Tokens(index)[firstPosition + row + 1], options));
                for (int row = 0; row < rowCount; row++)
                {
                    if (!double.IsFinite(losses[row])) throw windows.NotFinite(row);
                    total.Add(losses[row]);
                }
            }

            progress.Advance(plan.Context);
        }

        PerplexityFigure figure = PerplexityFigure.From(total, "model");
        return new PerplexityResult(
            figure.Perplexity,
            figure.StandardError,
            total.Count,
            plan.Context,
            plan.WindowCount,
            plan.Options.Protocol,
            plan.Options.Sampling,
            clock.Elapsed.TotalSeconds);
    }

    private static double Loss(ReadOnlySpan<float> logits, int target, RunOptions options)
    {
        float maximum = SoftmaxRows.Maximum(logits, options.Level);
        if (float.IsNaN(maximum)) return double.NaN;
        return Math.Log(SoftmaxRows.SumOfExponentials(logits, maximum, options.Level)) - (logits[target] - maximum);
    }
}
