using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>
/// What the tasks of an item take. Memory is what a task is given, which the forward pass keeps to and solvers are planned by; time is a rough guess, from operations at a
/// speed that a few cores have, good for a class only.
/// </summary>
internal sealed class BatchEstimate
{
    private const double OperationsPerSecond = 100e9, ValuesPerSecond = 50e6, SolvedValuesPerSecond = 3e6;
    private const long BytesPerThread = 16L << 20;

    public BatchEstimate(QuantizationRequest request, string? depth, BatchCalibration? calibration, BatchValidation? validate, RunContext context)
    {
        Checkpoint source = request.Source;
        CalibrationOptions windows = calibration is null ? new CalibrationOptions() : MethodChoice.Windows(BatchItemRun.WithCalibration(new QuantizationChoices(), calibration));
        double parameters = source.Tensors.Catalogue.ParameterCount, tokens = (double)windows.Samples * windows.Context;
        long weights = source.Raw.Tensors.Sum(entry => entry.ByteLength), header = request.Plan.Files.Sum(file => (long)file.Header.Length) + request.Plan.Companions.Sum(file => (long)file.Bytes.Length);
        long plain = (2 * MemoryPlan.RuntimeBytes) + (4 * header) + (context.Threads * BytesPerThread);
        long? solving = request.Conversion.PlannedSolvingBytes();
        bool collects = depth is null && request.Plan.Complete is not null;
        long forward = plain + (weights * 5 / 4) + (192L << 20), grams = Grams(source, depth);
        EncodeMemoryBytes = Math.Max(plain, Math.Max(solving ?? 0, collects ? forward : 0)) + (64L << 20);
        StatisticsMemoryBytes = forward + grams;
        ProveMemoryBytes = plain + weights + request.Plan.ByteLength + (weights / 4) + (256L << 20);
        StatisticsSeconds = 2 * parameters * tokens / OperationsPerSecond * (depth == "gram" ? 2 : 1);
        EncodeSeconds = solving is null ? (parameters / ValuesPerSecond) + (collects ? StatisticsSeconds : 0) : (parameters / SolvedValuesPerSecond) + (depth is null ? 3 * StatisticsSeconds : 0);
        ProveSeconds = validate is null ? 0 : 4 * parameters * validate.Windows().Chunks!.Value * validate.Context / OperationsPerSecond;
    }

    public long EncodeMemoryBytes { get; }
    public long StatisticsMemoryBytes { get; }
    public long ProveMemoryBytes { get; }
    public double StatisticsSeconds { get; }
    public double EncodeSeconds { get; }
    public double ProveSeconds { get; }

    /// <summary>Of the item alone, shared statistics not counted.</summary>
    public double Seconds => EncodeSeconds + ProveSeconds;

    public static string TimeClass(double seconds) => seconds switch { < 60 => "seconds", < 3600 => "minutes", < 86400 => "hours", _ => "days" };

    /// <summary>Refuses a text that has fewer windows than parts.</summary>
    public static void RequireWindows(Checkpoint source, EvaluationText text, CalibrationOptions windows, int partitions, RunContext context) =>
        DiagonalCalibration.Windows(new BpeTokenizer(source.Tokenizer), text, windows with { Partition = new Share(partitions - 1, partitions) }, context);

    private static long Grams(Checkpoint source, string? depth) => depth != "gram" ? 0
        : GramFile.Inputs(source.Tensors.Catalogue).GroupBy(input => input.Input.Layer).Max(layer => layer.Sum(input => GramMatrix.ByteCount(input.Width)));
}
