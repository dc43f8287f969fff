namespace Qwen2Quant.Model.Tokenization.Unicode;

/// <summary>
/// Normalization Form C (Unicode Standard Annex 15) of valid UTF-8, of our own because .NET's depends on ICU,
/// which invariant globalization leaves out. Text that is normalized already is only scanned.
/// </summary>
internal static class Nfc
{
    /// <summary>First byte of U+0300; every character below is a starter that NFC keeps.</summary>
    private const byte FirstRelevantLead = 0xCC;

    private const int LongestInsertionSort = 32;

    /// <summary>Appends the normalized text to <paramref name="output"/>; false, with nothing appended, when it is normalized already.</summary>
    public static bool TryNormalize(ReadOnlySpan<byte> text, GrowingBuffer<byte> output)
    {
        int copied = 0;
        GrowingBuffer<int>? characters = null;
        while (FindChange(text, copied, out int start, out int end))
        {
            output.Add(text[copied..start]);
            characters ??= new GrowingBuffer<int>(64);
            NormalizeRun(text[start..end], characters, output);
            copied = end;
        }

        if (characters is null) return false;
        output.Add(text[copied..]);
        return true;
    }

    /// <summary>
    /// Finds the next run that may not be normalized: from a starter that nothing before it absorbs up to the next one.
    /// What lies outside such runs stays as it is.
    /// </summary>
    private static bool FindChange(ReadOnlySpan<byte> text, int from, out int start, out int end)
    {
        int position = from;
        int markStart = -1;
        int lastClass = 0;
        while (true)
        {
            if (markStart < 0 && position < text.Length && text[position] < 0x80)
            {
                int skip = text[position..].IndexOfAnyInRange(FirstRelevantLead, (byte)0xFF);
                position = skip < 0 ? text.Length : position + skip;
            }

            if (position >= text.Length)
            {
                start = end = text.Length;
                return false;
            }

            int flags = NfcTables.Flags(Utf8Text.Decode(text, position, out int length));
            if (flags == 0)
            {
                markStart = -1;
                lastClass = 0;
            }
            else
            {
                if (markStart < 0) markStart = position;
                int combiningClass = flags & 0xFF;
                if ((flags & NfcTables.NotYes) != 0 || (combiningClass != 0 && combiningClass < lastClass)) break;
                lastClass = combiningClass;
            }

            position += length;
        }

        start = markStart;
        if (start > from)
        {
            do start--;
            while ((text[start] & 0xC0) == 0x80);
        }

        end = position;
        while (end < text.Length)
        {
            if (NfcTables.Flags(Utf8Text.Decode(text, end, out int length)) == 0) break;
            end += length;
        }

        return true;
    }

    private static void NormalizeRun(ReadOnlySpan<byte> run, GrowingBuffer<int> characters, GrowingBuffer<byte> output)
    {
        characters.Truncate(0);
        for (int position = 0; position < run.Length;)
        {
            Decompose(Utf8Text.Decode(run, position, out int length), characters);
            position += length;
        }

        Order(characters.Span);
        Span<byte> encoded = stackalloc byte[4];
        foreach (int character in characters.Span[..Compose(characters.Span)])
        {
            output.Add(encoded[..Utf8Text.Encode(character, encoded)]);
        }
    }

    private static void Decompose(int character, GrowingBuffer<int> characters)
    {
        if (!NfcTables.TryDecompose(character, out int first, out int second))
        {
            characters.Add(character);
            return;
        }

        Decompose(first, characters);
        if (second != 0) Decompose(second, characters);
    }

    /// <summary>Sorts each run of marks by combining class, stably.</summary>
    private static void Order(Span<int> characters)
    {
        for (int start = 0; start < characters.Length; start++)
        {
            if (NfcTables.CombiningClass(characters[start]) == 0) continue;
            int end = start + 1;
            while (end < characters.Length && NfcTables.CombiningClass(characters[end]) != 0) end++;
            if (end - start <= LongestInsertionSort) SortShort(characters[start..end]);
            else SortLong(characters[start..end]);
            start = end;
        }
    }

    private static void SortShort(Span<int> marks)
    {
        for (int i = 1; i < marks.Length; i++)
        {
            int mark = marks[i];
            int combiningClass = NfcTables.CombiningClass(mark);
            int place = i;
            for (; place > 0 && NfcTables.CombiningClass(marks[place - 1]) > combiningClass; place--) marks[place] = marks[place - 1];
            marks[place] = mark;
        }
    }

    private static void SortLong(Span<int> marks)
    {
        Span<int> starts = stackalloc int[257];
        starts.Clear();
        foreach (int mark in marks) starts[NfcTables.CombiningClass(mark) + 1]++;
        for (int i = 1; i < starts.Length; i++) starts[i] += starts[i - 1];
        int[] sorted = new int[marks.Length];
        foreach (int mark in marks) sorted[starts[NfcTables.CombiningClass(mark)]++] = mark;
        sorted.CopyTo(marks);
    }

    /// <summary>Composes in place and returns the new length.</summary>
    private static int Compose(Span<int> characters)
    {
        int starter = -1;
        int lastClass = -1;
        int count = 0;
        foreach (int character in characters)
        {
            int combiningClass = NfcTables.CombiningClass(character);
            if (starter >= 0 && lastClass < combiningClass && NfcTables.TryCompose(characters[starter], character, out int composed))
            {
                characters[starter] = composed;
                continue;
            }

            if (combiningClass == 0)
            {
                starter = count;
                lastClass = -1;
            }
            else
            {
                lastClass = combiningClass;
            }

            characters[count++] = character;
        }

        return count;
    }
}
