using Qwen2Quant.Model.Tokenization.Unicode;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Splits valid UTF-8 as <see cref="PreTokenizers.Qwen2Expression"/> does, on code points, in time linear in the text.
/// </summary>
internal static class Qwen2Splitter
{
    /// <summary>The end of the piece that begins at <paramref name="start"/>, a position inside the text.</summary>
    public static int NextPieceEnd(ReadOnlySpan<byte> text, int start)
    {
        byte lead = text[start];
        if (lead == '\'' && ContractionLength(text[(start + 1)..]) is var contraction and > 0) return start + 1 + contraction;
        CharacterClass first = CharacterClasses.At(text, start, out int length);
        int next = start + length;
        if (first == CharacterClass.Letter) return SkipLetters(text, next);
        if (first == CharacterClass.Number) return next;
        if (first != CharacterClass.LineBreak && next < text.Length)
        {
            CharacterClass second = CharacterClasses.At(text, next, out int secondLength);
            if (second == CharacterClass.Letter) return SkipLetters(text, next + secondLength);
            if (lead == ' ' && second == CharacterClass.Other) return SkipPunctuation(text, next + secondLength);
        }

        return first == CharacterClass.Other ? SkipPunctuation(text, next) : WhitespaceEnd(text, start);
    }

    /// <summary>Letters of a contraction after its apostrophe (<c>'s 't 're 've 'm 'll 'd</c>, either case), or 0.</summary>
    private static int ContractionLength(ReadOnlySpan<byte> text)
    {
        if (text.IsEmpty) return 0;
        int first = text[0] | 0x20;
        if (first is 's' or 't' or 'm' or 'd') return 1;
        if (text.Length < 2) return 0;
        return (first, text[1] | 0x20) is ('r', 'e') or ('v', 'e') or ('l', 'l') ? 2 : 0;
    }

    private static int SkipLetters(ReadOnlySpan<byte> text, int position)
    {
        while (position < text.Length && CharacterClasses.At(text, position, out int length) == CharacterClass.Letter) position += length;
        return position;
    }

    private static int SkipPunctuation(ReadOnlySpan<byte> text, int position)
    {
        while (position < text.Length && CharacterClasses.At(text, position, out int length) == CharacterClass.Other) position += length;
        while (position < text.Length && text[position] is (byte)'\r' or (byte)'\n') position++;
        return position;
    }

    /// <summary>
    /// The last three alternatives on a run of whitespace: up to its last line break; else all of it at the end of the text;
    /// else all but its last character, which the next piece may take; else that one character.
    /// </summary>
    private static int WhitespaceEnd(ReadOnlySpan<byte> text, int start)
    {
        int afterLineBreak = 0;
        int last = start;
        int position = start;
        while (position < text.Length)
        {
            CharacterClass kind = CharacterClasses.At(text, position, out int length);
            if (kind is not (CharacterClass.Space or CharacterClass.LineBreak)) break;
            last = position;
            position += length;
            if (kind == CharacterClass.LineBreak) afterLineBreak = position;
        }

        if (afterLineBreak > 0) return afterLineBreak;
        return position == text.Length || last == start ? position : last;
    }
}
