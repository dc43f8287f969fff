using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>Makes a file of Gram matrices: of a text, collected layer by layer on the model as it is; of other such files, added; or of both.</summary>
/// <param name="Target">Path of the output.</param>
/// <param name="Inputs">Files whose sums are added.</param>
public sealed record GramCalibration(string Target, IReadOnlyList<string> Inputs, bool Force = false)
{
    /// <param name="text">Null adds the inputs only.</param>
    /// <exception cref="QuantException">An input is refused, the disk fails, or the output does not read back; nothing is then published.</exception>
    public CalibrationReport Run(Checkpoint checkpoint, EvaluationText? text, CalibrationOptions options, RunContext context)
    {
        Stopwatch watch = Stopwatch.StartNew();
        string[] modelPaths = checkpoint.Location.Kind == ModelKind.BuiltIn ? [] : [.. checkpoint.WeightPaths, checkpoint.Location.Path];
        PendingOutput.CheckTarget(context.Files, Target, OutputKind.File, Force, [.. modelPaths, .. Inputs], plannedBytes: 0);
        List<GramFile> files = [];
        try
        {
            foreach (string input in Inputs) files.Add(GramFile.Open(input, checkpoint, context));
            LoadedModel model = LoadedModel.ForWindows(checkpoint, context);
            WindowPlan? windows = text is null ? null : DiagonalCalibration.Windows(model.Tokenizer, text, options, context);
            int windowCount = files.Sum(file => file.Windows) + (windows?.WindowCount ?? 0), length = windows?.Context ?? files[0].Context;
            string texts = string.Join(", ", files.Select(file => file.Text).Concat(text is null ? [] : [text.Name]).Distinct());
            PlannedFile plan = GramFile.Plan(Path.GetFileName(Target), checkpoint, texts, windowCount, length);
            PendingOutput.CheckTarget(context.Files, Target, OutputKind.File, Force, [], plan.ByteLength);
            using PendingOutput output = PendingOutput.Begin(context.Files, Target, OutputKind.File);
            Collect(checkpoint, model, windows, files, output.Create(plan), plan, context);
            output.Flush();
            checkpoint.RequireUnchanged();
            GramFile.Open(output.TemporaryPath, checkpoint, context).Dispose();
            context.Cancellation.ThrowIfCancellationRequested();
            output.Publish();
            long tokens = windows is null ? 0 : (long)windows.WindowCount * windows.Context;
            return new CalibrationReport(
                Conversion.Version, checkpoint.Location.DisplayName, Target, "safetensors", "gram", text?.Name, Inputs, plan.ByteLength, plan.Tensors.Count / 2, windowCount, length, tokens,
                null, null, watch.Elapsed.TotalSeconds, windows is null ? null : tokens / watch.Elapsed.TotalSeconds, null, context.Events.Events);
        }
        finally
        {
            foreach (GramFile file in files) file.Dispose();
        }
    }

    private void Collect(Checkpoint checkpoint, LoadedModel model, WindowPlan? windows, List<GramFile> files, IWriteFile target, PlannedFile plan, RunContext context)
    {
        TensorCatalogue catalogue = checkpoint.Tensors.Catalogue;
        ILookup<int, (LinearInput Input, int Width)> inputs = GramFile.Inputs(catalogue).ToLookup(input => input.Input.Layer);
        WorkerTeam team = new(context.Threads);
        LayerwisePass? pass = null;
        if (windows is not null)
        {
            long held = inputs.Max(layer => layer.Sum(input => GramMatrix.ByteCount(input.Width)));
            pass = model.BeginLayers(windows, MemoryPlan.DecideByInputs(context.MemoryBytes, model.Model, new WindowShape(windows.WindowCount, windows.Context, 0), held), keepsCarry: false);
        }

        using LayerwisePass? owned = pass;
        using IProgressTask progress = context.Progress.Start("Collecting", inputs.Count, "layers");
        foreach (IGrouping<int, (LinearInput Input, int Width)> layer in inputs.OrderBy(layer => layer.Key))
        {
            context.Cancellation.ThrowIfCancellationRequested();
            GramCollector collector = new(team, new StageTimes());
            pass?.RunLayer(layer.Key, collector, null, context.Cancellation);
            foreach ((LinearInput input, int width) in layer)
            {
                GramMatrix? gram = collector.Take(input);
                foreach (GramFile file in files) gram = file.Add(input, width, gram);
                try
                {
                    GramFile.Write(target, plan, input, gram);
                }
                catch (Exception error) when (FileExtensions.IsDiskFailure(error))
                {
                    throw PendingOutput.Failed(Target, error);
                }
            }

            progress.Advance(1);
        }
    }
}
