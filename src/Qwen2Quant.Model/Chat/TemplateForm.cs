using System.Text;

namespace Qwen2Quant.Model.Chat;

/// <summary>One step of a template: a statement, an expression that is printed, or literal text that is printed.</summary>
internal readonly record struct TemplateItem(TemplateItemKind Kind, string Text);

internal enum TemplateItemKind
{
    Statement,
    Expression,
    Literal,
}

/// <summary>
/// A Jinja template reduced to what it does, so that two spellings of one template compare equal: spaces outside literals,
/// kinds of quotes, <c>x['y']</c> for <c>x.y</c>, joined or separate printing, and trimmed white space do not count
/// (trim_blocks and lstrip_blocks are on, as in Transformers).
/// </summary>
internal static class TemplateForm
{
    /// <summary>In a known template: any text, the same wherever it stands.</summary>
    public const char Wildcard = '\uE000';

    /// <summary>The steps of a template, or null when its tags do not close.</summary>
    public static IReadOnlyList<TemplateItem>? TryRead(string template)
    {
        List<TemplateItem> items = [];
        StringBuilder literal = new();
        int position = 0;
        bool trimStart = false;
        bool afterBlock = false;
        while (true)
        {
            int open = NextTag(template, position);
            string text = template[position..(open < 0 ? template.Length : open)];
            bool startsLine = position == 0;
            if (trimStart)
            {
                text = text.TrimStart();
            }
            else if (afterBlock && text.StartsWith('\n'))
            {
                text = text[1..];
                startsLine = true;
            }

            if (open < 0)
            {
                literal.Append(text.EndsWith('\n') ? text[..^1] : text);
                Flush(items, literal);
                return items;
            }

            char kind = template[open + 1];
            int close = TagEnd(template, open + 2, kind);
            if (close < 0) return null;
            string inner = template[(open + 2)..close];
            if (inner.StartsWith('-')) text = text.TrimEnd();
            else if (kind != '{') text = TrimIndent(text, startsLine);
            literal.Append(text);
            trimStart = inner.EndsWith('-');
            afterBlock = kind != '{';
            inner = inner.Trim('-');
            if (kind == '{')
            {
                Print(items, literal, Reduce(inner));
            }
            else if (kind == '%')
            {
                Flush(items, literal);
                items.Add(new TemplateItem(TemplateItemKind.Statement, Reduce(inner)));
            }

            position = close + 2;
        }
    }

    /// <summary>Whether a template does what a known one does; <paramref name="wildcard"/> is what stands in the known one's place, null if it has none.</summary>
    public static bool Match(IReadOnlyList<TemplateItem> known, IReadOnlyList<TemplateItem> form, out string? wildcard)
    {
        wildcard = null;
        if (known.Count != form.Count) return false;
        for (int i = 0; i < known.Count; i++)
        {
            int place = known[i].Text.IndexOf(Wildcard);
            if (place < 0)
            {
                if (known[i] != form[i]) return false;
                continue;
            }

            string before = known[i].Text[..place];
            string after = known[i].Text[(place + 1)..];
            string text = form[i].Text;
            bool fits = form[i].Kind == known[i].Kind && text.Length >= before.Length + after.Length
                && text.StartsWith(before, StringComparison.Ordinal) && text.EndsWith(after, StringComparison.Ordinal);
            if (!fits) return false;
            string found = text[before.Length..^after.Length];
            if (wildcard is not null && wildcard != found) return false;
            wildcard = found;
        }

        return true;
    }

    private static int NextTag(string template, int from)
    {
        for (int open = template.IndexOf('{', from); open >= 0; open = template.IndexOf('{', open + 1))
        {
            if (open + 1 < template.Length && template[open + 1] is '{' or '%' or '#') return open;
        }

        return -1;
    }

    /// <summary>Where the closing two characters of a tag stand, those inside quotes passed over; -1 for none.</summary>
    private static int TagEnd(string template, int from, char kind)
    {
        string end = kind switch { '{' => "}}", '%' => "%}", _ => "#}" };
        char quote = '\0';
        for (int i = from; i + 1 < template.Length; i++)
        {
            char character = template[i];
            if (quote != '\0')
            {
                if (character == '\\') i++;
                else if (character == quote) quote = '\0';
            }
            else if (string.CompareOrdinal(template, i, end, 0, 2) == 0)
            {
                return i;
            }
            else if (kind != '#' && character is '\'' or '"')
            {
                quote = character;
            }
        }

        return -1;
    }

    /// <summary>Drops blanks between the last line break and a block tag.</summary>
    private static string TrimIndent(string text, bool startsLine)
    {
        string trimmed = text.TrimEnd(' ', '\t');
        return trimmed.EndsWith('\n') || (trimmed.Length == 0 && startsLine) ? trimmed : text;
    }

    /// <summary>Prints the parts of a sum one by one; literals join with those before.</summary>
    private static void Print(List<TemplateItem> items, StringBuilder literal, string expression)
    {
        int start = 0;
        int depth = 0;
        bool quoted = false;
        for (int i = 0; i <= expression.Length; i++)
        {
            if (i < expression.Length && expression[i] == '\u0001') quoted = !quoted;
            if (i < expression.Length && !quoted) depth += expression[i] switch { '(' or '[' => 1, ')' or ']' => -1, _ => 0 };
            if (i < expression.Length && (quoted || depth > 0 || expression[i] != '+')) continue;
            string part = expression[start..i];
            start = i + 1;
            if (part.Length >= 2 && part[0] == '\u0001' && part.IndexOf('\u0001', 1) == part.Length - 1)
            {
                literal.Append(part[1..^1]);
                continue;
            }

            Flush(items, literal);
            items.Add(new TemplateItem(TemplateItemKind.Expression, part));
        }
    }

    private static void Flush(List<TemplateItem> items, StringBuilder literal)
    {
        if (literal.Length > 0) items.Add(new TemplateItem(TemplateItemKind.Literal, literal.ToString()));
        literal.Clear();
    }

    /// <summary>An expression without blanks, its string literals unescaped between U+0001, <c>['name']</c> as <c>.name</c>.</summary>
    private static string Reduce(string source)
    {
        StringBuilder reduced = new();
        for (int i = 0; i < source.Length; i++)
        {
            char character = source[i];
            if (character is not ('\'' or '"'))
            {
                if (!char.IsWhiteSpace(character)) reduced.Append(character);
                continue;
            }

            StringBuilder value = new();
            for (i++; i < source.Length && source[i] != character; i++)
            {
                if (source[i] != '\\' || i + 1 == source.Length) value.Append(source[i]);
                else value.Append(source[++i] switch { 'n' => "\n", 't' => "\t", 'r' => "\r", '\\' or '\'' or '"' => source[i].ToString(), _ => $"\\{source[i]}" });
            }

            bool isMember = reduced.Length > 1 && reduced[^1] == '[' && (char.IsLetterOrDigit(reduced[^2]) || reduced[^2] is '_' or ']')
                && i + 1 < source.Length && source[i + 1] == ']' && value.Length > 0 && value.ToString().All(c => char.IsLetterOrDigit(c) || c == '_');
            if (isMember)
            {
                reduced[^1] = '.';
                reduced.Append(value);
                i++;
            }
            else
            {
                reduced.Append('\u0001').Append(value).Append('\u0001');
            }
        }

        return reduced.ToString();
    }
}
