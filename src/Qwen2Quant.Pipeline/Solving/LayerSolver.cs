using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>A matrix that GPTQ writes.</summary>
/// <param name="Source">The weights.</param>
internal sealed record SolvedTarget(CanonicalTensor Tensor, LinearInput Input, TensorEntry Source, ElementType Type);

/// <summary>Chooses the codes of matrices that share an input.</summary>
internal sealed class LayerSolver(ITensorSource source, SolvingJob job, Effort effort, WorkerTeam team, StageTimes times, IEventSink events)
{
    /// <summary>Floats of weights at a time; large enough for all threads, small beside a Hessian.</summary>
    private const int SlabValues = 16 << 20;

    /// <summary>
    /// Of the tokens of a mixture's layer an expert must see this share of its even share (tokens times chosen experts over experts) for a Hessian of its own.
    /// GPTQModel asks for 0.5 % of all.
    /// </summary>
    public const double LeastShare = 0.05;

    public const string FewTokensFallback = "rtn";

    /// <summary>Bytes that solving takes beside statistics: weights as floats, and what each thread works on.</summary>
    public static long WorkingBytes(int threads) => (SlabValues * (long)sizeof(float)) + (threads * (64L << 20));

    /// <param name="gram">Of their input; null when no token reached it.</param>
    /// <param name="inputError">What earlier matrices did to the input; null where that is not made up for.</param>
    /// <param name="evenTokens">Tokens that an expert would see if all saw as many; 0 outside mixtures.</param>
    public IEnumerable<(SolvedTarget Target, SolvedPart Part, byte[] Bytes)> Solve(IReadOnlyList<SolvedTarget> targets, GramMatrix? gram, InputError? inputError, double evenTokens)
    {
        if (gram is null || gram.RowCount < LeastShare * evenTokens)
        {
            foreach (SolvedTarget target in targets) yield return Round(target, gram);
            yield break;
        }

        if (!job.Method.Compensates)
        {
            ClipSearch rounding = new(gram, team);
            foreach (SolvedTarget target in targets)
            {
                // As AutoAWQ: what is cut off q and k shows in a softmax.
                bool clips = target.Tensor.Role is not (TensorRole.AttentionQ or TensorRole.AttentionK);
                (byte[] bytes, ErrorSums sums) = Encode(target, [], (slab, encoded) => rounding.Encode(slab, target.Type, effort, clips, encoded));
                yield return (target, new SolvedPart(target.Tensor.Name, job.Method.Name, null, gram.RowCount, 0, 0, 0, ErrorSumsRecord.Of(sums), 0, 0), bytes);
            }

            yield break;
        }

        foreach (IGrouping<int, SolvedTarget> group in targets.GroupBy(target => GptqSolver.GranuleLength(target.Type)).OrderBy(group => group.Key))
        {
            using GptqHessian hessian = Factor(group.First(), gram, group.Key);
            foreach (SolvedTarget target in group)
            {
                GptqErrors errors = default;
                (byte[] bytes, ErrorSums sums) = Encode(target, hessian.InputOrder.ToArray(), (slab, encoded) => errors += new GptqSolver(hessian).Solve(slab, target.Type, effort, encoded, team), inputError is null ? null : rows => inputError.Correct(rows, hessian, job.Options.InputCorrection, team));
                yield return (target, new SolvedPart(target.Tensor.Name, job.Method.Name, hessian.Damping, gram.RowCount, errors.Before, errors.After, errors.Square, ErrorSumsRecord.Of(sums), 0, 0, hessian.InputOrder.IsEmpty ? null : hessian.InputOrder.ToArray()), bytes);
            }
        }
    }

    private GptqHessian Factor(SolvedTarget target, GramMatrix gram, int granuleLength)
    {
        using IDisposable timed = times.Measure(Stage.Factor);
        GptqHessian hessian = new(target.Tensor.Name, gram, granuleLength, job.Options, team);
        if (hessian.Damping > job.Options.Damping)
        {
            events.Report(new QuantEvent("damping-raised", string.Create(
                CultureInfo.InvariantCulture, $"{target.Tensor.Name}: the Hessian of its input was not positive definite; damped by {hessian.Damping} of its mean diagonal [{StatisticsRules.Damping.Id}]"), target.Tensor.Name));
        }

        return hessian;
    }

    /// <summary>Plain rounding, with the few tokens' squares as importance when there are any.</summary>
    private (SolvedTarget Target, SolvedPart Part, byte[] Bytes) Round(SolvedTarget target, GramMatrix? gram)
    {
        long tokens = gram?.RowCount ?? 0;
        float[] importance = gram is null ? [] : [.. Enumerable.Range(0, gram.Width).Select(i => (float)(gram[i, i] / tokens))];
        (byte[] bytes, ErrorSums sums) = Encode(target, [], (slab, encoded) =>
            SolverCatalog.RoundToNearest.Encode(new RowSlab(slab.Tensor, slab.FirstRow, slab.RowLength, slab.Values, importance), target.Type, effort, encoded));
        return (target, new SolvedPart(target.Tensor.Name, FewTokensFallback, null, tokens, 0, 0, 0, ErrorSumsRecord.Of(sums), 0, 0), bytes);
    }

    private delegate void SlabEncoder(RowSlab slab, Span<byte> encoded);

    private delegate void RowCorrection(Span<float> rows);

    private (byte[] Bytes, ErrorSums Sums) Encode(SolvedTarget target, int[] columnOrder, SlabEncoder encode, RowCorrection? correct = null)
    {
        using IDisposable timed = times.Measure(Stage.Solve);
        int rowLength = checked((int)target.Source.Shape.RowLength), rowBytes = checked((int)target.Type.ByteCount(rowLength));
        long rowCount = target.Source.Shape.RowCount;
        byte[] bytes = new byte[checked(rowCount * rowBytes)];
        int rowsPerSlab = (int)Math.Min((long)Math.Max(SlabValues / rowLength / target.Type.RowsPerBlock, 1) * target.Type.RowsPerBlock, rowCount);
        float[] values = new float[rowsPerSlab * rowLength];
        TensorEntry entry = source.Find(target.Tensor.Name)!;
        ErrorSums sums = new();
        for (long row = 0; row < rowCount; row += rowsPerSlab)
        {
            int rows = (int)Math.Min(rowsPerSlab, rowCount - row);
            source.ReadRows(entry, row, rows, values);
            correct?.Invoke(values.AsSpan(0, rows * rowLength));
            if (columnOrder.Length > 0) Permute(values.AsSpan(0, rows * rowLength), columnOrder);
            RowSlab slab = new(target.Tensor.Name, row, rowLength, values.AsSpan(0, rows * rowLength));
            Span<byte> encoded = bytes.AsSpan(checked((int)(row * rowBytes)), rows * rowBytes);
            encode(slab, encoded);
            sums.Add(slab, target.Type, encoded);
        }

        return (bytes, sums);
    }

    private static void Permute(Span<float> rows, int[] columnOrder)
    {
        float[] row = new float[columnOrder.Length];
        for (int start = 0; start < rows.Length; start += row.Length)
        {
            Span<float> values = rows.Slice(start, row.Length);
            values.CopyTo(row);
            for (int at = 0; at < row.Length; at++) values[at] = row[columnOrder[at]];
        }
    }
}
