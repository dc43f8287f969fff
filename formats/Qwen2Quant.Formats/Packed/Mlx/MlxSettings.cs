using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>The <c>quantization</c> of an MLX checkpoint: common bits and group size, and by module path their own, or <c>false</c> for those that are plain.</summary>
public sealed class MlxSettings
{
    private readonly Dictionary<string, (int Bits, int GroupSize)?> _modules = new(StringComparer.Ordinal);
    private readonly (int Bits, int GroupSize) _common;

    private MlxSettings((int, int) common) => _common = common;

    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">PK-1.</exception>
    public static MlxSettings Read(ConfigJson json, string path)
    {
        MlxSettings settings = new(ReadOne(json, (4, 64)));
        foreach (string key in json.Keys)
        {
            if (json.IsObject(key)) settings._modules[key] = ReadOne(json.Object(key)!, settings._common);
            else if (json.IsFalse(key)) settings._modules[key] = null;
        }

        return settings;

        (int, int) ReadOne(ConfigJson from, (int Bits, int GroupSize) common)
        {
            string mode = from.Text("mode") ?? "affine";
            if (mode != "affine") throw PackedRules.Unknown(path, "mode", mode, "affine");
            int bits = from.Integer("bits", common.Bits), group = from.Integer("group_size", common.GroupSize);
            if (bits is not (2 or 3 or 4 or 5 or 6 or 8)) throw PackedRules.Unknown(path, "bits", $"{bits}", "2, 3, 4, 5, 6 or 8");
            if (group is not (32 or 64 or 128)) throw PackedRules.Unknown(path, "group_size", $"{group}", "32, 64 or 128");
            return (bits, group);
        }
    }

    /// <summary>Settings of a module by its path; null where they say that it is plain.</summary>
    internal (int Bits, int GroupSize)? For(string module) => _modules.TryGetValue(module, out (int Bits, int GroupSize)? own) ? own : _common;
}
