using System.Globalization;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Formats.Packed;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>A scheme <c>gptq:w4g128</c>: bits, group, and how columns are visited.</summary>
/// <param name="UsesActivationOrder"><c>-actorder</c>: codes are chosen in falling order of the inputs' power; groups stay as they lie.</param>
/// <param name="Overrides">Other settings for modules that a pattern finds in their names, or null to leave them plain; the first counts.</param>
public sealed partial record GptqScheme(GptqSettings Settings, bool UsesActivationOrder, IReadOnlyList<(string Pattern, GptqSettings? Settings)> Overrides)
{
    private const string Prefix = "gptq:";

    /// <summary>As <c>--to</c> spells it.</summary>
    public string Name => Prefix + Spell(Settings) + (UsesActivationOrder ? "-actorder" : "");

    /// <summary>Reads a scheme; null for one of another kind.</summary>
    /// <param name="overrides">As <c>--tensor-type</c> takes them: PATTERN=w8g64, PATTERN=plain.</param>
    /// <exception cref="QuantException">Usage: a scheme that does not exist.</exception>
    public static GptqScheme? Parse(string scheme, IReadOnlyList<string> overrides)
    {
        if (!scheme.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        string text = scheme[Prefix.Length..].ToLowerInvariant();
        if (text.EndsWith("-descact", StringComparison.Ordinal))
        {
            throw new QuantException(ErrorKind.Unsupported, "permuted groups (desc_act) are read, not written") { Found = scheme, Remedy = "Use -actorder: the same order of columns, with groups that every reader knows." };
        }

        bool ordered = text.EndsWith("-actorder", StringComparison.Ordinal);
        if (ordered) text = text[..^"-actorder".Length];
        return new GptqScheme(ParseSettings(text, scheme), ordered, [.. overrides.Select(ParseOverride)]);
    }

    private static (string, GptqSettings?) ParseOverride(string text)
    {
        int equals = text.LastIndexOf('=');
        if (equals <= 0) throw new QuantException(ErrorKind.Usage, "--tensor-type needs PATTERN=TYPE") { Found = text, Expected = "for example down_proj=w8g128, or lm_head=plain" };
        string settings = text[(equals + 1)..].ToLowerInvariant(), pattern = text[..equals];
        try
        {
            _ = new Regex(pattern);
        }
        catch (ArgumentException error)
        {
            throw new QuantException(ErrorKind.Usage, $"--tensor-type: the pattern is no regular expression: {error.Message}", error) { Found = pattern };
        }

        return (pattern, settings == "plain" ? null : ParseSettings(settings, text));
    }

    private static GptqSettings ParseSettings(string text, string found)
    {
        Match match = Spelling().Match(text);
        if (match.Success) return new GptqSettings(int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture), int.Parse(match.Groups[2].ValueSpan, CultureInfo.InvariantCulture), !match.Groups[3].Success);
        throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = found, Expected = "gptq:w2|w3|w4|w8 with g32|g64|g128|g-1, then -asym, then -actorder; for example gptq:w4g128" };
    }

    private static string Spell(GptqSettings settings) => string.Create(CultureInfo.InvariantCulture, $"w{settings.Bits}g{settings.GroupLength}{(settings.IsSymmetric ? "" : "-asym")}");

    [GeneratedRegex("^w([2348])g(32|64|128|-1)(-asym)?$")]
    private static partial Regex Spelling();
}
