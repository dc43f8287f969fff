using System.Globalization;
using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>Text and numbers as the report writes them: invariant culture, nothing from outside taken as markup.</summary>
internal static class ReportText
{
    /// <summary>Stands for what was not measured.</summary>
    public const string Missing = "–";

    private const double LargestPlotted = 1e30;

    /// <summary>Text for an element or a quoted attribute; characters that are not seen, or that no document may hold, become their numbers.</summary>
    public static string Escape(string text)
    {
        StringBuilder safe = new(text.Length + 16);
        foreach (Rune rune in text.EnumerateRunes())
        {
            switch (rune.Value)
            {
                case '&': safe.Append("&amp;"); break;
                case '<': safe.Append("&lt;"); break;
                case '>': safe.Append("&gt;"); break;
                case '"': safe.Append("&quot;"); break;
                case '\'': safe.Append("&#39;"); break;
                case '\n' or '\r' or '\t': safe.Append(' '); break;
                default:
                    if (IsUnseen(rune)) safe.Append(CultureInfo.InvariantCulture, $"\\u{{{rune.Value:x}}}");
                    else safe.Append(rune.ToString());
                    break;
            }
        }

        return safe.ToString();
    }

    /// <summary>A value that was measured and is a number.</summary>
    public static bool IsNumber(double? value) => value is { } number && double.IsFinite(number) && Math.Abs(number) < LargestPlotted;

    public static string Number(double value, string format) => (value + 0.0).ToString(format, CultureInfo.InvariantCulture);

    /// <summary>A coordinate or a sort key with no more digits than are needed.</summary>
    public static string Coordinate(double value) => Number(Math.Round(value, 1), "0.#");

    /// <summary>A divergence: five decimals, or an exponent where these show nothing.</summary>
    public static string Divergence(double value) => value != 0 && Math.Abs(value) < 5e-6 ? Number(value, "0.0e-0") : Number(value, "0.00000");

    /// <summary>A perplexity, which may be anything from 1 on.</summary>
    public static string Perplexity(double value) => Math.Abs(value) < 1e6 ? Number(value, "0.000") : Number(value, "0.00e0");

    public static string Duration(double seconds) => seconds switch
    {
        < 59.95 => Number(seconds, "0.0") + " s",
        < 3600 => string.Create(CultureInfo.InvariantCulture, $"{(long)seconds / 60} min {(long)seconds % 60} s"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{Math.Floor(seconds / 3600)} h {Math.Floor(seconds / 60 % 60)} min"),
    };

    /// <summary>A count with its noun.</summary>
    public static string Count(int count, string singular, string plural) => string.Create(CultureInfo.InvariantCulture, $"{count} {(count == 1 ? singular : plural)}");

    private static bool IsUnseen(Rune rune) =>
        Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator
            or UnicodeCategory.ParagraphSeparator or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned;
}

/// <summary>The decimal unit in which all sizes of a section are given.</summary>
internal sealed record SizeUnit(string Name, double Bytes, string Format)
{
    /// <summary>The unit that suits the largest of some sizes.</summary>
    public static SizeUnit For(long largest) => largest switch
    {
        >= 1_000_000_000 => new SizeUnit("GB", 1e9, "0.000"),
        >= 1_000_000 => new SizeUnit("MB", 1e6, "0.0"),
        >= 1_000 => new SizeUnit("kB", 1e3, "0.0"),
        _ => new SizeUnit("B", 1, "0"),
    };

    public string Show(long bytes) => ShowValue(bytes);

    public string ShowValue(double bytes) => ReportText.Number(bytes / Bytes, Format);
}
