using System.Globalization;
using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary><c>--override-kv KEY=TYPE:VALUE</c>: a metadata key that is set to a value, as llama-quantize stores it.</summary>
public sealed record MetadataOverride(string Key, GgufValue Value)
{
    /// <summary>Bytes of a key or a text that llama.cpp's option can hold.</summary>
    private const int LongestText = 127;

    /// <summary>TYPE is <c>int</c> (stored as u32), <c>float</c> (f32), <c>bool</c> or <c>str</c>.</summary>
    /// <exception cref="QuantException">A usage error.</exception>
    public static MetadataOverride Parse(string text)
    {
        int equals = text.IndexOf('=', StringComparison.Ordinal);
        int colon = equals < 0 ? -1 : text.IndexOf(':', equals);
        if (equals <= 0 || colon < 0) throw Refuse(text, "KEY=TYPE:VALUE, for example tokenizer.ggml.add_bos_token=bool:false");
        string key = text[..equals], value = text[(colon + 1)..];
        if (!GgufKeys.IsWellFormed(key) || key.Length > LongestText) throw Refuse(text, $"a key in lower snake case with dots, of {LongestText} characters at most");
        return new MetadataOverride(key, text[(equals + 1)..colon] switch
        {
            "int" => uint.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out uint number) ? GgufValue.Scalar(number) : throw Refuse(text, $"a whole number from 0 to {uint.MaxValue}"),
            "float" => float.TryParse(value, NumberStyles.Float, CultureInfo.InvariantCulture, out float number) && float.IsFinite(number) ? GgufValue.Scalar(number) : throw Refuse(text, "a number"),
            "bool" => value is "true" or "false" ? GgufValue.Scalar(value == "true") : throw Refuse(text, "true or false"),
            "str" => Encoding.UTF8.GetByteCount(value) is > 0 and <= LongestText ? GgufValue.String(value) : throw Refuse(text, $"a text of 1 to {LongestText} bytes"),
            _ => throw Refuse(text, "one of the types int, float, bool, str"),
        });
    }

    private static QuantException Refuse(string found, string expected) => new(ErrorKind.Usage, "--override-kv is not understood") { Found = found, Expected = expected };
}
