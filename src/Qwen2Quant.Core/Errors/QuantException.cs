using System.Globalization;
using System.Text;

namespace Qwen2Quant.Core.Errors;

/// <summary>What kind of failure an error is; the command line maps each to one exit code.</summary>
public enum ErrorKind
{
    /// <summary>The command line or a recipe is wrong.</summary>
    Usage,

    /// <summary>An input breaks a rule of its format.</summary>
    InvalidInput,

    /// <summary>An input is well formed and needs something this program does not do.</summary>
    Unsupported,

    /// <summary>Values are not finite, or a computation on them cannot succeed.</summary>
    Numeric,

    /// <summary>An output does not verify, or a quality gate failed.</summary>
    Verification,

    /// <summary>A substitution under <c>--strict</c>, or a partial batch.</summary>
    Substitution,

    /// <summary>Disk, memory, or a stated limit.</summary>
    Resource,

    /// <summary>Another run holds what this one needs; trying again may succeed.</summary>
    Busy,
}

/// <summary>
/// The one typed error: rule, place, what was found, what was expected, and what the user can do.
/// Strings that come from files are escaped when the message is composed.
/// </summary>
public sealed class QuantException(ErrorKind kind, string summary, Exception? inner = null) : Exception(summary, inner)
{
    public ErrorKind Kind { get; } = kind;

    /// <summary>One sentence without the place.</summary>
    public string Summary { get; } = summary;

    public Rule? Rule { get; init; }
    public string? Path { get; init; }

    /// <summary>Tensor or metadata key concerned.</summary>
    public string? Tensor { get; init; }

    public long? ByteOffset { get; init; }
    public string? Found { get; init; }
    public string? Expected { get; init; }

    /// <summary>What the user can do about it.</summary>
    public string? Remedy { get; init; }

    /// <summary>The same error of a file; for code that knows the values and not where they come from.</summary>
    public QuantException In(string path) => new(Kind, Summary, this) { Rule = Rule, Path = path, Tensor = Tensor, ByteOffset = ByteOffset, Found = Found, Expected = Expected, Remedy = Remedy };

    public override string Message
    {
        get
        {
            StringBuilder text = new();
            if (Path is not null) text.Append(TextEscape.Escape(Path)).Append(": ");
            text.Append(Summary);
            if (Tensor is not null) text.Append(" '").Append(TextEscape.Escape(Tensor)).Append('\'');
            if (ByteOffset is { } offset) text.Append(CultureInfo.InvariantCulture, $" at byte {offset}");
            if (Found is not null) text.Append(": found ").Append(TextEscape.Escape(Found));
            if (Expected is not null) text.Append(Found is null ? ": expected " : ", expected ").Append(TextEscape.Escape(Expected));
            if (Rule is not null) text.Append(" [").Append(Rule.Id).Append(']');
            if (Remedy is not null) text.Append(". ").Append(Remedy);
            return text.ToString();
        }
    }
}
