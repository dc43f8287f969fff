using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Formats.Packed.Awq;

/// <summary>The <c>quantization_config</c> of an AWQ checkpoint: AutoAWQ's keys. Which modules are plain is taken from the tensors.</summary>
/// <param name="GroupSize">Inputs of a group, -1 for whole rows, null where the configuration does not say: the tensors do.</param>
public sealed record AwqSettings(int? GroupSize)
{
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">PK-1: not the GEMM version, not 4 bits, or without zeros.</exception>
    public static AwqSettings Read(ConfigJson json, string path)
    {
        string version = json.Text("version") ?? "gemm";
        if (!version.Equals("gemm", StringComparison.OrdinalIgnoreCase)) throw PackedRules.Unknown(path, "version", version, "gemm");
        int bits = json.OptionalInteger("bits") ?? json.OptionalInteger("w_bit") ?? 4;
        if (bits != 4) throw PackedRules.Unknown(path, "bits", $"{bits}", "4");
        if (json.OptionalBoolean("zero_point") is false) throw PackedRules.Unknown(path, "zero_point", "false", "true");
        int? group = json.OptionalInteger("group_size") ?? json.OptionalInteger("q_group_size");
        if (group is { } size && size != -1 && (size <= 0 || size % BitFields.WordRun != 0)) throw PackedRules.Unknown(path, "group_size", $"{size}", "-1 or a multiple of 32");
        return new AwqSettings(group);
    }
}
