using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>What a GPTQ configuration says of a module.</summary>
/// <param name="Bits">2, 3, 4 or 8.</param>
/// <param name="GroupSize">Columns of a group, -1 for whole rows, null where the configuration does not say: the tensors do.</param>
/// <param name="IsSymmetric">Every zero is the middle code.</param>
public sealed record GptqModuleSettings(int Bits, int? GroupSize, bool IsSymmetric);

/// <summary>
/// The <c>quantization_config</c> of a GPTQ checkpoint, which <c>quantize_config.json</c> repeats: keys of AutoGPTQ and GPTQModel. Whether columns are permuted is not
/// taken from <c>desc_act</c> but from each module's <c>g_idx</c>.
/// </summary>
public sealed class GptqSettings
{
    // A pattern from a file may backtrack without end.
    private static readonly TimeSpan MatchTime = TimeSpan.FromSeconds(1);

    private readonly GptqModuleSettings _base;
    private readonly IReadOnlyList<(Regex Pattern, GptqModuleSettings? Settings)> _dynamic;
    private readonly string _path;

    private GptqSettings(GptqModuleSettings settings, bool isV2, IReadOnlyList<(Regex, GptqModuleSettings?)> dynamic, string path)
    {
        (_base, IsV2, _dynamic, _path) = (settings, isV2, dynamic, path);
    }

    /// <summary>True where zeros are stored as they are (<c>gptq_v2</c>), false where they are stored less one (<c>gptq</c>).</summary>
    public bool IsV2 { get; }

    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">PK-1.</exception>
    public static GptqSettings Read(ConfigJson json, string path)
    {
        string format = json.Text("checkpoint_format") ?? json.Text("format") ?? "gptq";
        if (json.Boolean("is_marlin_format", false)) throw PackedRules.Unknown(path, "is_marlin_format", "true", "false");
        if (format.ToLowerInvariant() is not ("gptq" or "gptq_v2")) throw PackedRules.Unknown(path, "checkpoint_format", format, "gptq or gptq_v2");
        if (json.Text("pack_dtype") is { } packed && packed != "int32") throw PackedRules.Unknown(path, "pack_dtype", packed, "int32");
        if (json.Has("rotation")) throw PackedRules.Unknown(path, "rotation", "a rotation", "none: rotated activations are not supported");
        GptqModuleSettings settings = ReadModule(json, new GptqModuleSettings(0, null, true), path);
        if (settings.Bits == 0) throw new QuantException(ErrorKind.InvalidInput, "the quantization configuration has no bits") { Rule = PackedRules.Configuration, Path = path, Expected = "2, 3, 4 or 8" };
        List<(Regex, GptqModuleSettings?)> rules = [];
        if (json.Object("dynamic") is { } dynamic)
        {
            foreach (string key in dynamic.Keys) rules.Add(ReadRule(key, dynamic.Object(key), settings, path));
        }

        return new GptqSettings(settings, format.Equals("gptq_v2", StringComparison.OrdinalIgnoreCase), rules, path);
    }

    /// <summary>Settings of a module by its full name: the first rule of <c>dynamic</c> whose pattern fits from the name's start, else the common ones; null where the rule says that the module is plain.</summary>
    /// <exception cref="QuantException">PK-1: a pattern takes too long.</exception>
    public GptqModuleSettings? For(string module)
    {
        try
        {
            foreach ((Regex pattern, GptqModuleSettings? settings) in _dynamic)
            {
                if (pattern.IsMatch(module)) return settings;
            }
        }
        catch (RegexMatchTimeoutException error)
        {
            throw new QuantException(ErrorKind.InvalidInput, "a pattern of dynamic takes too long to match", error) { Rule = PackedRules.Configuration, Path = _path, Tensor = module, Found = error.Pattern };
        }

        return _base;
    }

    private static (Regex, GptqModuleSettings?) ReadRule(string key, ConfigJson? value, GptqModuleSettings settings, string path)
    {
        bool isNegative = key.StartsWith("-:", StringComparison.Ordinal);
        string pattern = isNegative || key.StartsWith("+:", StringComparison.Ordinal) ? key[2..] : key;
        try
        {
            return (new Regex($"^(?:{pattern})", RegexOptions.CultureInvariant, MatchTime), isNegative ? null : value is null ? settings : ReadModule(value, settings, path));
        }
        catch (ArgumentException error)
        {
            throw new QuantException(ErrorKind.InvalidInput, "a pattern of dynamic is not a regular expression", error) { Rule = PackedRules.Configuration, Path = path, Found = pattern };
        }
    }

    private static GptqModuleSettings ReadModule(ConfigJson json, GptqModuleSettings fallback, string path)
    {
        int bits = json.OptionalInteger("bits") ?? json.OptionalInteger("w_bit") ?? fallback.Bits;
        if (bits is not (0 or 2 or 3 or 4 or 8) || (bits == 0 && fallback.Bits != 0)) throw PackedRules.Unknown(path, "bits", $"{bits}", "2, 3, 4 or 8");
        int? group = json.OptionalInteger("group_size") ?? json.OptionalInteger("q_group_size") ?? fallback.GroupSize;
        if (group is { } size && size != -1 && (size <= 0 || size % BitFields.WordRun != 0)) throw PackedRules.Unknown(path, "group_size", $"{size}", "-1 or a multiple of 32");
        return new GptqModuleSettings(bits, group, json.OptionalBoolean("sym") ?? fallback.IsSymmetric);
    }
}
