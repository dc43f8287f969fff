using System.Globalization;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Validation;

/// <summary>A limit that a comparison broke.</summary>
/// <param name="Key">Key of <c>compare</c>'s JSON.</param>
/// <param name="IsUpper">True where the value lies above the limit, false where it lies below.</param>
public sealed record GateViolation(string Key, double Value, double Limit, bool IsUpper)
{
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Key} = {Value:G6} is {(IsUpper ? "above" : "below")} {Limit}");
}

/// <summary>Limits on the figures of a comparison. A value that equals its limit passes.</summary>
public sealed class QualityGate
{
    private const string Example = "Write for example mean_kld=0.1.";

    private readonly (ComparisonKey Key, double Limit, bool IsUpper)[] _limits;

    private QualityGate((ComparisonKey, double, bool)[] limits) => _limits = limits;

    /// <summary>Whether a limit is on a figure of a text that is read.</summary>
    public bool NeedsText => _limits.Any(limit => !limit.Key.IsOfGeneration);

    /// <summary>Whether a limit is on a figure of generated text.</summary>
    public bool NeedsGeneration => _limits.Any(limit => limit.Key.IsOfGeneration);

    /// <summary>Reads limits of the form <c>key=value</c>; a key may have several.</summary>
    /// <param name="failAbove">Upper limits: for perplexities and divergences.</param>
    /// <param name="failBelow">Lower limits: for <c>top_token_agreement</c>, which is better when larger.</param>
    /// <exception cref="QuantException">Usage: a key is unknown (the known ones are listed), or a value is not a finite number.</exception>
    public static QualityGate Parse(IEnumerable<string> failAbove, IEnumerable<string> failBelow) =>
        new([.. failAbove.Select(text => Parse(text, "--fail-above", true)), .. failBelow.Select(text => Parse(text, "--fail-below", false))]);

    /// <summary>The limits that were broken, in the order in which they were given; what was not measured breaks none.</summary>
    public IReadOnlyList<GateViolation> Evaluate(ComparisonResult? text, GenerationComparison? generation = null)
    {
        List<GateViolation> violations = [];
        foreach ((ComparisonKey key, double limit, bool isUpper) in _limits)
        {
            if (key.Read(text, generation) is not { } value) continue;
            if (isUpper ? value > limit : value < limit) violations.Add(new GateViolation(key.Name, value, limit, isUpper));
        }

        return violations;
    }

    private static (ComparisonKey, double, bool) Parse(string text, string option, bool isUpper)
    {
        int separator = text.IndexOf('=');
        if (separator < 0) throw Refused($"{option} takes key=value", text, Example);
        ComparisonKey key = ComparisonKeys.Find(text[..separator].Trim())
            ?? throw Refused($"{option} names no figure of a comparison", text, $"Known keys are {string.Join(", ", ComparisonKeys.All.Select(known => known.Name))}.");
        if (!double.TryParse(text.AsSpan(separator + 1), NumberStyles.Float, CultureInfo.InvariantCulture, out double limit) || !double.IsFinite(limit))
        {
            throw Refused($"{option} takes a finite number", text, Example);
        }

        return (key, limit, isUpper);
    }

    private static QuantException Refused(string summary, string found, string remedy) =>
        new(ErrorKind.Usage, summary) { Found = found, Remedy = remedy };
}
