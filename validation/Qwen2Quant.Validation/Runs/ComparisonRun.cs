using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Validation;

/// <summary>
/// Two models on the same windows: perplexity of each (see <see cref="PerplexityRun"/>), Kullback-Leibler divergence of the candidate
/// from the base over the whole vocabulary, and how often their most probable tokens agree. Statistics are llama-perplexity's
/// (<c>--kl-divergence</c>), from exact logits where that reads 16-bit ones, or from its file of these. Positions are added in the order
/// of the text, so the result does not depend on the number of threads.
/// </summary>
public static class ComparisonRun
{
    /// <summary>Compares over the windows of <paramref name="plan"/>.</summary>
    /// <param name="decode">Turns token ids into text, for the worst positions.</param>
    /// <exception cref="QuantException">InvalidInput: the vocabularies differ, or tokens lie outside them. Numeric: logits are not finite.</exception>
    /// <exception cref="OperationCanceledException">Between two windows.</exception>
    public static ComparisonResult Run(
        ILogitModel baseModel,
        ILogitModel candidateModel,
        WindowPlan plan,
        Func<IReadOnlyList<int>, string> decode,
        RunOptions options,
        CancellationToken cancellation = default)
    {
        if (baseModel.VocabularySize != candidateModel.VocabularySize)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the two models have vocabularies of different sizes")
            {
                Found = candidateModel.VocabularySize.ToString(CultureInfo.InvariantCulture),
                Expected = baseModel.VocabularySize.ToString(CultureInfo.InvariantCulture),
            };
        }

        using WindowModel first = new(baseModel, plan, options, "base");
        return Run(first, candidateModel, plan, decode, options, cancellation);
    }

    /// <summary>Compares with the base that <paramref name="baseFile"/> holds, over the windows of a plan that it made.</summary>
    /// <param name="decode">Turns token ids into text, for the worst positions.</param>
    /// <exception cref="QuantException">LG-2: the vocabularies differ. LG-3: the file is damaged. Numeric: logits are not finite.</exception>
    /// <exception cref="OperationCanceledException">Between two windows.</exception>
    public static ComparisonResult Run(
        LogitFile baseFile,
        ILogitModel candidateModel,
        WindowPlan plan,
        Func<IReadOnlyList<int>, string> decode,
        RunOptions options,
        CancellationToken cancellation = default)
    {
        baseFile.RequireVocabulary(candidateModel.VocabularySize);
        using LogitFileRows first = new(baseFile, plan, options);
        return Run(first, candidateModel, plan, decode, options, cancellation);
    }

    private static ComparisonResult Run(
        IBaseRows first,
        ILogitModel candidateModel,
        WindowPlan plan,
        Func<IReadOnlyList<int>, string> decode,
        RunOptions options,
        CancellationToken cancellation)
    {
        Stopwatch clock = Stopwatch.StartNew();
        using WindowModel second = new(candidateModel, plan, options, "candidate");
        first.RunLayers(options.Progress, "base, layer by layer", cancellation);
        second.RunLayers(options.Progress, "candidate, layer by layer", cancellation);
        int rowsPerChunk = Math.Min(first.RowsPerChunk, second.RowsPerChunk);
        RowScore[] scores = new RowScore[rowsPerChunk];
        ComparisonTotals totals = new();
        ParallelOptions parallel = new() { MaxDegreeOfParallelism = options.Threads };
        using IProgressTask progress = options.Progress.Start("compare", (long)plan.WindowCount * plan.Context, "tokens");
        for (int window = 0; window < plan.WindowCount; window++)
        {
            cancellation.ThrowIfCancellationRequested();
            first.Forward(window);
            second.Forward(window);
            for (int scored = 0; scored < plan.ScoredPerWindow; scored += rowsPerChunk)
            {
                int firstPosition = plan.FirstScored + scored;
                int rowCount = Math.Min(rowsPerChunk, plan.ScoredPerWindow - scored);
                int index = window;
                first.ComputeRows(firstPosition, rowCount);
                second.ComputeRows(firstPosition, rowCount);
                Parallel.For(0, rowCount, parallel, row =>
                    scores[row] = first.Score(row, second.Row(row), plan.Tokens(index)[firstPosition + row + 1], options.Level));
                for (int row = 0; row < rowCount; row++)
                {
                    ref readonly RowScore score = ref scores[row];
                    if (!double.IsFinite(score.BaseLoss)) throw first.NotFinite(row);
                    if (!double.IsFinite(score.CandidateLoss) || !double.IsFinite(score.Divergence)) throw second.NotFinite(row);
                    totals.Add(score);
                    options.Divergences?.Add(score.Divergence);
                    if (!totals.Worst.Accepts(score.Divergence)) continue;
                    totals.Worst.Add(window, firstPosition + row, score, first.Row(row), second.Row(row));
                }
            }

            progress.Advance(plan.Context);
        }

        return totals.Summarize(plan, decode, clock.Elapsed.TotalSeconds);
    }
}
