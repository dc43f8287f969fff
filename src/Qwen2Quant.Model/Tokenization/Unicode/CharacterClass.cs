using System.Globalization;
using System.Runtime.CompilerServices;

namespace Qwen2Quant.Model.Tokenization.Unicode;

/// <summary>The classes that the split expression tells apart.</summary>
internal enum CharacterClass : byte
{
    Other,

    /// <summary>\p{L}</summary>
    Letter,

    /// <summary>\p{N}</summary>
    Number,

    /// <summary>\s without the two of <see cref="LineBreak"/>.</summary>
    Space,

    /// <summary>Carriage return and line feed.</summary>
    LineBreak,
}

internal static class CharacterClasses
{
    private static readonly byte[] ByCategory = BuildByCategory();
    private static readonly byte[] BasicPlane = BuildBasicPlane();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static CharacterClass Of(int character) =>
        (CharacterClass)(character < 0x10000 ? BasicPlane[character] : ByCategory[(int)CharUnicodeInfo.GetUnicodeCategory(character)]);

    /// <summary>The class of the character at <paramref name="position"/> of valid UTF-8, and its length in bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static CharacterClass At(ReadOnlySpan<byte> text, int position, out int byteLength) => Of(Utf8Text.Decode(text, position, out byteLength));

    private static byte[] BuildByCategory()
    {
        byte[] classes = new byte[(int)UnicodeCategory.OtherNotAssigned + 1];
        for (UnicodeCategory category = 0; category <= UnicodeCategory.OtherNotAssigned; category++)
        {
            classes[(int)category] = (byte)(category switch
            {
                <= UnicodeCategory.OtherLetter => CharacterClass.Letter,
                UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => CharacterClass.Number,
                UnicodeCategory.SpaceSeparator or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator => CharacterClass.Space,
                _ => CharacterClass.Other,
            });
        }

        return classes;
    }

    private static byte[] BuildBasicPlane()
    {
        byte[] classes = new byte[0x10000];
        for (int character = 0; character < classes.Length; character++)
        {
            classes[character] = ByCategory[(int)CharUnicodeInfo.GetUnicodeCategory(character)];
        }

        classes['\t'] = classes['\v'] = classes['\f'] = classes['\u0085'] = (byte)CharacterClass.Space;
        classes['\r'] = classes['\n'] = (byte)CharacterClass.LineBreak;
        return classes;
    }
}
