using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>An item of a batch as a request, which is what a worker runs.</summary>
internal static class BatchItemRun
{
    /// <summary>The options with those of a calibration.</summary>
    public static QuantizationChoices WithCalibration(QuantizationChoices choices, BatchCalibration? calibration) => calibration is null ? choices : choices with
    {
        Calibration = calibration.Text, Samples = calibration.Samples, Context = calibration.Context, Sampling = calibration.Sampling, ParseSpecial = calibration.ParseSpecial,
    };

    /// <summary>Opens an item where it is made; refuses one whose source or recipe is not what was planned.</summary>
    public static QuantizationRequest Open(BatchManifest manifest, BatchItem item, BatchFolder folder, RunContext context)
    {
        BatchStatistics? statistics = item.Statistics is null ? null : manifest.StatisticsOf(item.Statistics);
        QuantizationChoices choices = statistics is null ? WithCalibration(item.Options, item.Calibration)
            : statistics.Depth == "gram" ? item.Options with { Statistics = folder.Absolute(statistics.Path) }
            : item.Options with { Imatrix = folder.Absolute(statistics.Path), ImatrixName = Path.GetFileName(statistics.Path) };
        QuantizationRequest request = QuantizationRequest.Open(item.Model, item.Scheme, Path.Combine(folder.BuiltFolder(item), item.Output), choices, new OutputHandling(Resume: true, Name: item.Output), context, Stream.Null);
        try
        {
            int parts = manifest.Tasks.Where(task => task.Item == item.Index && task.Stage == BatchStage.Encode).Max(task => task.Parts);
            Dictionary<string, string> identity = Identity(request.Source, SchemeChoice.Read(item.Scheme, item.Options, context), item.Options, statistics?.Calibration ?? item.Calibration, statistics?.Depth, parts, context);
            if (RunSettings.Difference(item.Identity, identity) is { } difference)
            {
                throw new QuantException(ErrorKind.InvalidInput, "the item is not what was planned") { Rule = BatchRules.SameWork, Path = item.Model, Found = difference, Remedy = "Plan the batch again with `batch plan`." };
            }

            return request;
        }
        catch
        {
            request.Dispose();
            throw;
        }
    }

    /// <summary>What the bytes of an item's output depend on, by name.</summary>
    public static Dictionary<string, string> Identity(Checkpoint source, SchemeChoice scheme, QuantizationChoices choices, BatchCalibration? calibration, string? depth, int parts, RunContext context) => new(StringComparer.Ordinal)
    {
        ["version"] = Conversion.Version,
        ["source"] = RunSettings.Hash(source.Identity),
        ["scheme"] = scheme.Name,
        ["options"] = RunSettings.Hash(JsonSerializer.Serialize(choices, BatchJson.Default.QuantizationChoices)),
        ["recipe"] = HashOf(choices.Recipe, context),
        ["imatrix"] = HashOf(choices.Imatrix, context),
        ["calibration"] = calibration is null ? "none" : RunSettings.Hash($"{EvaluationText.Load(context.Files, calibration.Text, Stream.Null).Text} {calibration with { Text = "" }}"),
        ["statistics"] = depth ?? "none",
        ["parts"] = $"{parts}",
    };

    private static string HashOf(string? path, RunContext context) => path is null ? "none" : FileHash.Sha256(() => Core.Files.FileExtensions.OpenTyped(context.Files, path), context.Cancellation);
}
