using System.Text.Json.Nodes;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Formats.Packed.Mlx;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>What a packed folder says of itself, in the words of its layout's readers.</summary>
internal static class PackedConfiguration
{
    /// <summary>Writes the scheme into config.json; returns the files that repeat it.</summary>
    public static IEnumerable<CompanionFile> Apply(PackedScheme scheme, FusedUnits units, TensorCatalogue catalogue, QuantizationOptions options, JsonObject config)
    {
        switch (scheme)
        {
            case GptqScheme gptq:
                JsonObject quantization = GptqConfiguration.Write(gptq, units, options.Damping);
                config["quantization_config"] = quantization.DeepClone();
                return [new CompanionFile(PackedSource.GptqFileName, FolderPlanner.WriteJson(quantization))];
            case AwqScheme awq:
                config["quantization_config"] = AwqConfiguration.Write(awq, units, catalogue);
                return [];
            case CtScheme compressed:
                config["quantization_config"] = CtConfiguration.Write(compressed, units, catalogue);
                return [];
            case Fp8Scheme fp8:
                config["quantization_config"] = CtConfiguration.WriteFp8(fp8, units, catalogue);
                return [];
            case MlxScheme mlx:
                JsonObject affine = Mlx(mlx, units);
                config["quantization"] = affine.DeepClone();
                config["quantization_config"] = affine;
                return [];
            default:
                throw new ArgumentException($"no configuration of {scheme}", nameof(scheme));
        }
    }

    /// <summary>mlx-lm's object: what all modules have, and those with their own by path, stacked experts by that of the stack; modules without scales are plain.</summary>
    private static JsonObject Mlx(MlxScheme scheme, FusedUnits units)
    {
        JsonObject json = new() { ["group_size"] = scheme.GroupSize, ["bits"] = scheme.Bits, ["mode"] = "affine" };
        foreach (CanonicalTensor tensor in units.Linears)
        {
            if (units.SchemeOf(tensor.Name) is MlxScheme own && own != scheme) json[PackedLayout.Module(scheme.Layout.StackOf(tensor.Name)?.Name ?? tensor.Name)] = new JsonObject { ["group_size"] = own.GroupSize, ["bits"] = own.Bits };
        }

        return json;
    }
}
