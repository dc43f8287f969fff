using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Model;

/// <summary>generation_config.json; null where the file does not say.</summary>
public sealed record GenerationConfig
{
    /// <summary>Tokens that end a text.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];

    public int? BosTokenId { get; init; }
    public int? PadTokenId { get; init; }
    public bool? DoSample { get; init; }
    public double? Temperature { get; init; }
    public double? TopP { get; init; }
    public int? TopK { get; init; }
    public double? RepetitionPenalty { get; init; }
    public int? MaxNewTokens { get; init; }

    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">HF-69, HF-70.</exception>
    public static GenerationConfig ParseJson(ReadOnlySpan<byte> utf8, string path) => ParseJson(utf8, path, Limits.Default);

    public static GenerationConfig ParseJson(ReadOnlySpan<byte> utf8, string path, Limits limits)
    {
        ConfigJson json = ConfigJson.Parse(utf8, path, limits, ModelRules.Json);
        GenerationConfig config = new()
        {
            EosTokenIds = json.Integers("eos_token_id") ?? [],
            BosTokenId = json.OptionalInteger("bos_token_id"),
            PadTokenId = json.OptionalInteger("pad_token_id"),
            DoSample = json.OptionalBoolean("do_sample"),
            Temperature = json.OptionalNumber("temperature"),
            TopP = json.OptionalNumber("top_p"),
            TopK = json.OptionalInteger("top_k"),
            RepetitionPenalty = json.OptionalNumber("repetition_penalty"),
            MaxNewTokens = json.OptionalInteger("max_new_tokens"),
        };
        if (config.EosTokenIds.Any(id => id < 0)) throw Refuse(path, "eos_token_id", "not negative");
        if (config.Temperature < 0) throw Refuse(path, "temperature", "not negative");
        if (config.TopP is <= 0 or > 1) throw Refuse(path, "top_p", "above 0 and at most 1");
        if (config.TopK < 0) throw Refuse(path, "top_k", "not negative");
        if (config.RepetitionPenalty <= 0) throw Refuse(path, "repetition_penalty", "above 0");
        return config;
    }

    private static QuantException Refuse(string path, string key, string expected) => new(ErrorKind.InvalidInput, "wrong value of key")
    {
        Rule = ModelRules.Values, Path = path, Tensor = key, Expected = expected,
    };
}
