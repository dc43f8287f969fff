using System.Text.Json.Nodes;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Pipeline.Checkpoints;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>What a packed folder says of itself, in the words of its layout's readers.</summary>
internal static class PackedConfiguration
{
    /// <summary>Writes the scheme into config.json; returns the files that repeat it.</summary>
    public static IEnumerable<CompanionFile> Apply(PackedScheme scheme, FusedUnits units, QuantizationOptions options, JsonObject config)
    {
        switch (scheme)
        {
            case GptqScheme gptq:
                JsonObject quantization = GptqConfiguration.Write(gptq, units, options.Damping);
                config["quantization_config"] = quantization.DeepClone();
                return [new CompanionFile(PackedSource.GptqFileName, FolderPlanner.WriteJson(quantization))];
            default:
                throw new ArgumentException($"no configuration of {scheme}", nameof(scheme));
        }
    }
}
