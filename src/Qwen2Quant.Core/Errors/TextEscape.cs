using System.Globalization;
using System.Text;

namespace Qwen2Quant.Core.Errors;

/// <summary>Makes strings that come from files safe to print: no control characters, no terminal sequences, bounded length.</summary>
public static class TextEscape
{
    private const int LongestShown = 200;

    public static string Escape(string text)
    {
        StringBuilder safe = new(Math.Min(text.Length, LongestShown) + 8);
        int shown = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (shown++ == LongestShown)
            {
                safe.Append(CultureInfo.InvariantCulture, $"… ({text.Length} characters)");
                break;
            }

            UnicodeCategory category = Rune.GetUnicodeCategory(rune);
            if (category is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator
                or UnicodeCategory.ParagraphSeparator or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned)
            {
                safe.Append(CultureInfo.InvariantCulture, $"\\u{{{rune.Value:x}}}");
            }
            else
            {
                safe.Append(rune.ToString());
            }
        }

        return safe.ToString();
    }

    /// <summary>The first bytes of a file, printable, for "found" in a message.</summary>
    public static string Escape(ReadOnlySpan<byte> bytes)
    {
        StringBuilder safe = new();
        foreach (byte b in bytes[..Math.Min(bytes.Length, 32)])
        {
            if (b is >= 0x20 and < 0x7f) safe.Append((char)b);
            else safe.Append(CultureInfo.InvariantCulture, $"\\x{b:x2}");
        }

        return safe.ToString();
    }
}
