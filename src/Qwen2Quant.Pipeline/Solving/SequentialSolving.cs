using System.Globalization;
using System.Text;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>
/// GPTQ in the sequential schedule: layer by layer, and in a layer input by input, all windows show what they bring to the matrices, these are solved, and the windows go on
/// through what was written. Statistics of one layer exist at a time, and none reaches a file.
/// </summary>
internal sealed class SequentialSolving : ModelSolving
{
    private readonly LoadedModel _model;
    private readonly WindowPlan _windows;
    private readonly MemoryPlan _memory;

    /// <exception cref="QuantException">The text is too short, or the memory given too small.</exception>
    public SequentialSolving(Checkpoint source, ConversionPlan plan, SolvingJob job, Effort effort, bool strict, RunContext context) : base(source, plan, job, effort, strict, context)
    {
        _model = LoadedModel.ForWindows(source, context);
        _windows = DiagonalCalibration.Windows(_model.Tokenizer, job.Text!, job.Calibration, context);
        _memory = MemoryPlan.DecideByInputs(context.MemoryBytes, _model.Model, new WindowShape(_windows.WindowCount, _windows.Context, 0), SolvingBytes(), CorrectsInputs ? 2 : 1);
    }

    public override long PlannedBytes => _memory.PlannedBytes;

    protected override (string Name, int Windows, int Context) Calibration => (Job.Text!.Name, _windows.WindowCount, _windows.Context);

    protected override string CalibrationIdentity
    {
        get
        {
            StringBuilder tokens = new();
            for (int window = 0; window < _windows.WindowCount; window++)
            {
                foreach (int token in _windows.Tokens(window)) tokens.Append(CultureInfo.InvariantCulture, $"{token} ");
                tokens.Append('\n');
            }

            return tokens.ToString();
        }
    }

    protected override void RunLayers(LayerSolver solver, SolvedTensors solved, Share? share)
    {
        if (share is not null) throw new ArgumentException("each layer is solved under what the layers before it became", nameof(share));
        using IDisposable timed = Times.Measure(Stage.Forward);
        using LayerwisePass pass = _model.BeginLayers(_windows, _memory, keepsCarry: true);
        using LayerwisePass? original = CorrectsInputs ? LoadedModel.ForWindows(Source, Context).BeginLayers(_windows, _memory, keepsCarry: true) : null;
        int layers = Source.Config.NumHiddenLayers;
        long total = (long)_windows.WindowCount * _windows.Context, passed = 0, shown = 0;
        using IProgressTask progress = Context.Progress.Start("Solving", total, "tokens");
        for (int layer = 0; layer < layers; layer++) RunLayer(layer);

        void RunLayer(int layer)
        {
            Context.Cancellation.ThrowIfCancellationRequested();
            SolvedTarget[] targets = [.. ByLayer[layer]];
            if (targets.Length == 0 || Begin(solved, layer, targets))
            {
                Rescaling.Apply(layer, solved.Folds ?? [], targets, pass);
                foreach (SolvedTarget target in targets) Replace(layer, target);
                pass.RunLayer(layer, null, Advance, Context.Cancellation);
                original?.RunLayer(layer, null, null, Context.Cancellation);
                return;
            }

            GramCollector grams = new(Team, Times, Job.Method.Rescaling == Solving.Rescaling.SmoothQuant);
            if (Rescales)
            {
                pass.ShowLayer(layer, grams, Job.AllExperts, Context.Cancellation);
                if (solved.Folds is null) solved.Keep(Rescaling.Find(layer, targets, grams.Find, grams.Largest, LayerSolver.LeastShare * EvenTokens(total)));
                Rescaling.Apply(layer, solved.Folds!, targets, pass);
            }

            if (!Job.Method.Compensates)
            {
                foreach (SolvedTarget target in Solve(solver, solved, targets, (input, _) => Rescaling.Rescale(input, grams.Take(input)), _ => null, total)) Replace(layer, target);
                pass.RunLayer(layer, null, Advance, Context.Cancellation);
                return;
            }

            grams.Clear();
            InputErrorCollector? errors = original is null ? null : new InputErrorCollector(Rescaling.Divisors, Team, Times);
            pass.RunLayerByInputs(layer, grams, SolveStage, Job.AllExperts, Advance, errors is null ? null : (original!, errors), Context.Cancellation);

            void SolveStage(LinearInputKind kind)
            {
                foreach (SolvedTarget target in Solve(solver, solved, targets.Where(target => StageOf(target.Input.Kind) == kind), (input, _) => grams.Take(input), input => errors?.Find(input), total)) Replace(layer, target);

                grams.Clear();
                errors?.Clear();
            }
        }

        void Replace(int layer, SolvedTarget target)
        {
            (ITensorSource source, TensorEntry entry) = solved.Multiplied(target.Tensor.Name);
            pass.Replace(layer, target.Tensor.Name, source, entry);
        }

        void Advance(int tokens)
        {
            passed += tokens;
            progress.Advance((passed / layers) - shown);
            shown = passed / layers;
        }
    }

    private bool CorrectsInputs => Job.Method.Compensates && Job.Options.InputCorrection > 0;

    /// <summary>Bytes of the Gram matrices of one stage, of the Hessian made of one of them, and of the weights being solved.</summary>
    private long SolvingBytes()
    {
        long most = Rescales ? RescalingBytes() : 0;
        foreach (IGrouping<(int Layer, LinearInputKind), SolvedTarget> stage in ByLayer.SelectMany(layer => layer).GroupBy(target => (target.Input.Layer, StageOf(target.Input.Kind))))
        {
            long grams = stage.Select(target => (target.Input, Width: (int)target.Source.Shape.RowLength)).Distinct().Sum(input => GramMatrix.ByteCount(input.Width));
            long hessian = stage.Max(target => GptqHessian.ByteCount((int)target.Source.Shape.RowLength));
            long errors = CorrectsInputs ? stage.Select(target => (target.Input, Width: (int)target.Source.Shape.RowLength)).Where(input => input.Input.Expert < 0).Distinct().Sum(input => InputError.ByteCount(input.Width)) : 0;
            most = Math.Max(most, grams + hessian + errors);
        }

        long encoded = ByLayer.Max(layer => layer.Sum(target => target.Type.ByteCount(target.Source.Shape.ValueCount)));
        return most + encoded + LayerSolver.WorkingBytes(Context.Threads);
    }

    /// <summary>Bytes of all Gram matrices of a layer, of the search over one of them, and of the layer's rewritten weights beyond those that it has anyway.</summary>
    private long RescalingBytes() => ByLayer.Max(layer =>
    {
        int[] widths = [.. layer.Select(target => (target.Input, Width: (int)target.Source.Shape.RowLength)).Distinct().Select(input => input.Width)];
        return widths.Sum(GramMatrix.ByteCount) + LayerRescaling.SearchBytes(widths.Max()) + layer.Sum(target => (sizeof(float) * target.Source.Shape.ValueCount) - target.Source.ByteLength);
    });
}
