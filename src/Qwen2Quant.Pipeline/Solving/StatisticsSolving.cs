using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>GPTQ in the parallel schedule: the Gram matrices of the model as it is come from a file, and no matrix depends on another.</summary>
internal sealed class StatisticsSolving : ModelSolving
{
    private readonly GramFile _statistics;

    /// <exception cref="QuantException">The file is another model's, or the memory given too small.</exception>
    public StatisticsSolving(Checkpoint source, ConversionPlan plan, SolvingJob job, Effort effort, bool strict, RunContext context) : base(source, plan, job, effort, strict, context)
    {
        _statistics = GramFile.Open(job.StatisticsPath!, source, context);
        PlannedBytes = MemoryPlan.RuntimeBytes + ByLayer.SelectMany(layer => layer).Max(target =>
        {
            int width = (int)target.Source.Shape.RowLength;
            return GramMatrix.ByteCount(width) + Math.Max(GptqHessian.ByteCount(width), Rescales ? LayerRescaling.SearchBytes(width) : 0);
        }) + ByLayer.Max(layer => layer.Sum(target => target.Type.ByteCount(target.Source.Shape.ValueCount))) + LayerSolver.WorkingBytes(context.Threads);
        if (PlannedBytes > context.MemoryBytes)
        {
            throw new QuantException(ErrorKind.Resource, "the memory given is too small to solve the largest matrix")
            {
                Found = string.Create(CultureInfo.InvariantCulture, $"{context.MemoryBytes} bytes"), Expected = string.Create(CultureInfo.InvariantCulture, $"at least {PlannedBytes}"), Remedy = "Raise --memory.",
            };
        }
    }

    public override long PlannedBytes { get; }

    protected override (string Name, int Windows, int Context) Calibration => (_statistics.Text, _statistics.Windows, _statistics.Context);

    protected override string CalibrationIdentity => _statistics.Identity;

    public override void Dispose() => _statistics.Dispose();

    protected override void RunLayers(LayerSolver solver, SolvedTensors solved, Share? share)
    {
        long tokens = (long)_statistics.Windows * _statistics.Context;
        using IProgressTask progress = Context.Progress.Start("Solving", ByLayer.Count, "layers");
        foreach (IGrouping<int, SolvedTarget> layer in ByLayer.OrderBy(layer => layer.Key).Where(layer => share is null || share.Takes(layer.Key)))
        {
            SolvedTarget[] targets = [.. layer];
            bool isDone = Begin(solved, layer.Key, targets);
            if (!isDone && Rescales && solved.Folds is null) solved.Keep(Rescaling.Find(layer.Key, targets, input => Read(input, WidthOf(input)), _ => null, LayerSolver.LeastShare * EvenTokens(tokens)));
            Rescaling.Apply(layer.Key, solved.Folds ?? [], targets, null);
            foreach (SolvedTarget _ in isDone ? [] : Solve(solver, solved, targets, (input, width) => Rescaling.Rescale(input, Read(input, width)), _ => null, tokens))
            {
            }

            progress.Advance(1);
        }
    }

    private int WidthOf(LinearInput input) => (int)Source.Tensors.Catalogue.Tensors.First(tensor => LinearInput.Of(tensor) == input).Shape.RowLength;

    private GramMatrix? Read(LinearInput input, int width)
    {
        using IDisposable timed = Times.Measure(Stage.Gram);
        return _statistics.Add(input, width, null);
    }
}
