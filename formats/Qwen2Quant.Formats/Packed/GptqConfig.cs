using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>How one module is packed.</summary>
/// <param name="GroupLength">-1 for whole rows.</param>
public sealed record GptqSettings(int Bits, int GroupLength, bool IsSymmetric);

/// <summary><c>quantization_config</c> of config.json, or quantize_config.json, of a GPTQ checkpoint: what its reading depends on.</summary>
public sealed class GptqConfig
{
    private static readonly TimeSpan PatternTimeout = TimeSpan.FromSeconds(1);

    private readonly GptqSettings _default;
    private readonly List<(Regex Pattern, GptqSettings? Settings)> _dynamic = [];

    private GptqConfig(GptqSettings settings, bool isFirstVersion)
    {
        _default = settings;
        IsFirstVersion = isFirstVersion;
    }

    /// <summary><c>checkpoint_format</c> is gptq or absent, not gptq_v2.</summary>
    public bool IsFirstVersion { get; }

    /// <exception cref="QuantException">A key has a value that no reader knows.</exception>
    public static GptqConfig Parse(ReadOnlySpan<byte> json, string path)
    {
        JsonObject config;
        try
        {
            config = JsonNode.Parse(json) as JsonObject ?? throw Wrong("the object", "no object", "a JSON object");
            if (config["quantization_config"] is JsonObject inner) config = inner;
        }
        catch (JsonException error)
        {
            throw new QuantException(ErrorKind.InvalidInput, $"is not valid JSON: {error.Message}", error) { Path = path };
        }

        string format = Text(config, "checkpoint_format") ?? Text(config, "format") ?? "gptq";
        if (format is not ("gptq" or "gptq_v2")) throw Wrong("checkpoint_format", format, "gptq or gptq_v2");
        if (Text(config, "pack_dtype") is { } pack and not "int32") throw Wrong("pack_dtype", pack, "int32");
        GptqSettings settings = Read(config, null);
        GptqConfig result = new(settings, format == "gptq");
        if (config["dynamic"] is not JsonObject dynamic) return result;
        foreach ((string key, JsonNode? value) in dynamic)
        {
            bool skips = key.StartsWith("-:", StringComparison.Ordinal);
            string pattern = skips || key.StartsWith("+:", StringComparison.Ordinal) ? key[2..] : key;
            try
            {
                result._dynamic.Add((new Regex($"^(?:{pattern})", RegexOptions.CultureInvariant, PatternTimeout), skips ? null : Read(value as JsonObject ?? [], settings)));
            }
            catch (ArgumentException)
            {
                throw Wrong("dynamic", key, "a regular expression");
            }
        }

        return result;

        GptqSettings Read(JsonObject from, GptqSettings? otherwise)
        {
            int bits = Integer(from, "bits") ?? Integer(from, "w_bit") ?? otherwise?.Bits ?? throw Wrong("bits", "nothing", "2, 3, 4 or 8");
            int group = Integer(from, "group_size") ?? Integer(from, "q_group_size") ?? otherwise?.GroupLength ?? 128;
            if (bits is not (2 or 3 or 4 or 8)) throw Wrong("bits", bits.ToString(CultureInfo.InvariantCulture), "2, 3, 4 or 8");
            if (group != -1 && (group < 32 || group % 32 != 0)) throw Wrong("group_size", group.ToString(CultureInfo.InvariantCulture), "-1, or a multiple of 32");
            return new GptqSettings(bits, group, from["sym"] is JsonValue sym && sym.TryGetValue(out bool value) ? value : otherwise?.IsSymmetric ?? true);
        }

        QuantException Wrong(string key, string found, string expected) => new(ErrorKind.InvalidInput, $"quantization_config: {key} is not one that can be read") { Path = path, Found = found, Expected = expected };
    }

    /// <summary>How a module is packed; null for one that a negative rule leaves plain. The first rule that finds its name counts, from the name's start.</summary>
    public GptqSettings? Of(string module)
    {
        foreach ((Regex pattern, GptqSettings? settings) in _dynamic)
        {
            if (pattern.IsMatch(module)) return settings;
        }

        return _default;
    }

    private static string? Text(JsonObject config, string key) => config[key] is JsonValue value && value.TryGetValue(out string? text) ? text.ToLowerInvariant() : null;

    private static int? Integer(JsonObject config, string key) => config[key] is JsonValue value && value.TryGetValue(out int number) ? number : null;
}
