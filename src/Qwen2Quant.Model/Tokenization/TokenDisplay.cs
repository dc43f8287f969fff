using System.Buffers;
using System.Globalization;
using System.Text;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>Pieces for the eye.</summary>
public static class TokenDisplay
{
    /// <summary>
    /// A piece as printable text: <c>\n \r \t \\</c>, other characters that do not print as <c>\u{hex}</c>,
    /// bytes that are not a whole character as <c>\xhh</c>.
    /// </summary>
    public static string Escape(ReadOnlySpan<byte> piece)
    {
        StringBuilder text = new();
        while (!piece.IsEmpty)
        {
            if (Rune.DecodeFromUtf8(piece, out Rune rune, out int length) != OperationStatus.Done)
            {
                foreach (byte part in piece[..length]) text.Append(CultureInfo.InvariantCulture, $"\\x{part:x2}");
            }
            else
            {
                Append(text, rune);
            }

            piece = piece[length..];
        }

        return text.ToString();
    }

    private static void Append(StringBuilder text, Rune rune)
    {
        switch (rune.Value)
        {
            case '\n':
                text.Append("\\n");
                return;
            case '\r':
                text.Append("\\r");
                return;
            case '\t':
                text.Append("\\t");
                return;
            case '\\':
                text.Append("\\\\");
                return;
        }

        bool prints = Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator
            or UnicodeCategory.ParagraphSeparator or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned);
        if (prints) text.Append(rune.ToString());
        else text.Append(CultureInfo.InvariantCulture, $"\\u{{{rune.Value:x}}}");
    }
}
