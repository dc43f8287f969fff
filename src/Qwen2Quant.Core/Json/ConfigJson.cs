using System.Text.Json;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Json;

/// <summary>One JSON object from a configuration file, read strictly.</summary>
public sealed class ConfigJson
{
    private readonly JsonElement _object;
    private readonly string _path;
    private readonly string _prefix;

    private readonly Rule _rule;

    private ConfigJson(JsonElement element, string path, string prefix, Rule rule)
    {
        _object = element;
        _path = path;
        _prefix = prefix;
        _rule = rule;
    }

    public IEnumerable<string> Keys => _object.EnumerateObject().Select(property => property.Name);

    /// <param name="rule">The rule that a file breaks which is not such an object or has values of another type.</param>
    /// <exception cref="QuantException"><paramref name="rule"/> is broken.</exception>
    public static ConfigJson Parse(ReadOnlySpan<byte> utf8, string path, Limits limits, Rule rule)
    {
        int length = utf8.Length;
        StrictJson.Read(utf8, limits, StrictJson.Skip, problem => Refuse(problem, path, length, limits, rule));
        Utf8JsonReader reader = StrictJson.NewReader(utf8, limits.JsonDepth);
        JsonElement root = JsonElement.ParseValue(ref reader);
        if (root.ValueKind == JsonValueKind.Object) return new ConfigJson(root, path, "", rule);
        throw new QuantException(ErrorKind.InvalidInput, "not a JSON object") { Rule = rule, Path = path, Found = root.ValueKind.ToString() };
    }

    public bool Has(string key) => TryGet(key, out _);

    public int Integer(string key, int fallback) => OptionalInteger(key) ?? fallback;

    public int? OptionalInteger(string key)
    {
        if (!TryGet(key, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number)) return number;
        throw Wrong(key, value, "an integer of 32 bits");
    }

    public double Number(string key, double fallback) => OptionalNumber(key) ?? fallback;

    public double? OptionalNumber(string key)
    {
        if (!TryGet(key, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && double.IsFinite(number)) return number;
        throw Wrong(key, value, "a finite number");
    }

    public bool Boolean(string key, bool fallback) => OptionalBoolean(key) ?? fallback;

    public bool? OptionalBoolean(string key)
    {
        if (!TryGet(key, out JsonElement value)) return null;
        if (value.ValueKind is JsonValueKind.True or JsonValueKind.False) return value.GetBoolean();
        throw Wrong(key, value, "true or false");
    }

    public string? Text(string key)
    {
        if (!TryGet(key, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.String) return value.GetString();
        throw Wrong(key, value, "a string");
    }

    public bool IsObject(string key) => TryGet(key, out JsonElement value) && value.ValueKind == JsonValueKind.Object;

    public bool IsFalse(string key) => TryGet(key, out JsonElement value) && value.ValueKind == JsonValueKind.False;

    public ConfigJson? Object(string key)
    {
        if (!TryGet(key, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.Object) return new ConfigJson(value, _path, $"{_prefix}{key}.", _rule);
        throw Wrong(key, value, "an object");
    }

    public IReadOnlyList<string>? Texts(string key)
    {
        const string Expected = "a list of strings";
        return List(key, Expected, item => item.ValueKind == JsonValueKind.String ? item.GetString()! : throw Wrong(key, item, Expected));
    }

    /// <summary>A list of integers; a single integer is a list of one.</summary>
    public IReadOnlyList<int>? Integers(string key)
    {
        const string Expected = "an integer of 32 bits or a list of them";
        if (TryGet(key, out JsonElement value) && value.ValueKind == JsonValueKind.Number) return [Integer(key, 0)];
        return List(key, Expected, item => item.ValueKind == JsonValueKind.Number && item.TryGetInt32(out int number) ? number : throw Wrong(key, item, Expected));
    }

    private T[]? List<T>(string key, string expected, Func<JsonElement, T> read)
    {
        if (!TryGet(key, out JsonElement value)) return null;
        if (value.ValueKind != JsonValueKind.Array) throw Wrong(key, value, expected);
        return [.. value.EnumerateArray().Select(read)];
    }

    // null means what an absent key means, as in the classes of Transformers.
    private bool TryGet(string key, out JsonElement value) => _object.TryGetProperty(key, out value) && value.ValueKind != JsonValueKind.Null;

    private QuantException Wrong(string key, JsonElement value, string expected) => new(ErrorKind.InvalidInput, "wrong value of key")
    {
        Rule = _rule, Path = _path, Tensor = _prefix + key, Found = value.GetRawText(), Expected = expected,
    };

    private static QuantException Refuse(JsonProblem problem, string path, int byteLength, Limits limits, Rule rule) => problem.Fault switch
    {
        JsonFault.Size => new(ErrorKind.Resource, "the file is too large")
        {
            Rule = rule, Path = path, Found = $"{byteLength} bytes", Expected = $"at most {limits.JsonFileBytes}",
        },
        JsonFault.DuplicateName => new(ErrorKind.InvalidInput, "a key occurs twice")
        {
            Rule = rule, Path = path, Tensor = problem.Name, ByteOffset = problem.ByteOffset,
        },
        JsonFault.Utf8 => new(ErrorKind.InvalidInput, "a string is not valid Unicode", problem.Error) { Rule = rule, Path = path },
        _ => new(ErrorKind.InvalidInput, $"not strict JSON (line {(problem.Error as JsonException)?.LineNumber + 1})", problem.Error)
        {
            Rule = rule, Path = path, Found = problem.Error?.Message,
        },
    };
}
