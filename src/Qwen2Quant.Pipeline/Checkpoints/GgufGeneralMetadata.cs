using System.Globalization;
using System.Text.RegularExpressions;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The <c>general.*</c> keys that mainline's converter writes first: sampling defaults and what the model's name tells.</summary>
internal static partial class GgufGeneralMetadata
{
    public static void Write(GgufMetadata metadata, Qwen2Config config, GenerationConfig? generation, string modelName, string? license, long parameterCount)
    {
        metadata.Set("general.architecture", GgufValue.String(config.GgufArchitecture));
        metadata.Set("general.type", GgufValue.String("model"));
        if (generation?.TopK is { } topK) metadata.Set("general.sampling.top_k", GgufValue.Scalar(topK));
        if (generation?.TopP is { } topP) metadata.Set("general.sampling.top_p", GgufValue.Scalar((float)topP));
        if (generation?.Temperature is { } temperature) metadata.Set("general.sampling.temp", GgufValue.Scalar((float)temperature));

        string[] parts = modelName.Split(['-', '_', ' '], StringSplitOptions.RemoveEmptyEntries);
        int sizeAt = Array.FindIndex(parts, part => SizePattern().IsMatch(part));
        string baseName = string.Join('-', sizeAt < 0 ? parts : parts[..sizeAt]);
        string fineTune = sizeAt < 0 ? "" : string.Join('-', parts[(sizeAt + 1)..]);
        metadata.Set("general.name", GgufValue.String(string.Join(' ', parts)));
        if (fineTune.Length > 0) metadata.Set("general.finetune", GgufValue.String(fineTune));
        if (baseName.Length > 0) metadata.Set("general.basename", GgufValue.String(baseName));
        metadata.Set("general.size_label", GgufValue.String(sizeAt < 0 ? SizeLabel(config, parameterCount) : parts[sizeAt].ToUpperInvariant()));
        if (license is not null) metadata.Set("general.license", GgufValue.String(license));
    }

    /// <summary>Parameters as mainline labels them: <c>494M</c>, <c>1.5B</c>; for experts <c>64x8.9B</c>, the shared part with one expert.</summary>
    internal static string SizeLabel(Qwen2Config config, long parameterCount)
    {
        if (!config.IsMoe || config.NumExperts == 0) return Scaled(parameterCount);
        long expert = 3L * config.MoeIntermediateSize * config.HiddenSize;
        long sparseLayers = Enumerable.Range(0, config.NumHiddenLayers).Count(config.IsSparse);
        long shared = parameterCount - (sparseLayers * config.NumExperts * expert);
        return $"{config.NumExperts}x{Scaled(shared + (sparseLayers * expert))}";
    }

    private static string Scaled(long count)
    {
        (double scale, string suffix) = count switch
        {
            > 1_000_000_000_000 => (1e12, "T"),
            > 1_000_000_000 => (1e9, "B"),
            > 1_000_000 => (1e6, "M"),
            _ => (1e3, "K"),
        };
        double scaled = count / scale;
        string format = Math.Round(scaled) < 10 ? "0.0" : "0";
        return scaled.ToString(format, CultureInfo.InvariantCulture) + suffix;
    }

    [GeneratedRegex(@"^\d+(\.\d+)?[KMBTkmbt]$")]
    private static partial Regex SizePattern();
}
