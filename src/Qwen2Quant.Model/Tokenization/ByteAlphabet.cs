using Qwen2Quant.Model.Tokenization.Unicode;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// GPT-2's byte-level alphabet: printable Latin-1 bytes stand for themselves, the other 68 for U+0100 and on, in order.
/// </summary>
public static class ByteAlphabet
{
    /// <summary>The spelling of byte 0x20, U+0120.</summary>
    public const char Space = '\u0120';

    private static readonly char[] Spellings = new char[256];
    private static readonly short[] Bytes = new short[0x144];

    static ByteAlphabet()
    {
        Bytes.AsSpan().Fill(-1);
        int shifted = 0x100;
        for (int value = 0; value < 256; value++)
        {
            bool printable = value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or >= 0xAE;
            Spellings[value] = (char)(printable ? value : shifted++);
            Bytes[Spellings[value]] = (short)value;
        }
    }

    public static char Spell(byte value) => Spellings[value];

    /// <summary>The byte a character stands for, or -1.</summary>
    public static int ToByte(int character) => character < Bytes.Length ? Bytes[character] : -1;

    /// <summary>
    /// Writes the bytes that a spelling stands for and returns how many, at most as many as the spelling has.
    /// A text with a character outside the alphabet stands for its own UTF-8 (Hugging Face's byte-level decoder).
    /// </summary>
    internal static int Decode(ReadOnlySpan<byte> spelling, Span<byte> destination)
    {
        int count = 0;
        for (int position = 0; position < spelling.Length;)
        {
            int value = ToByte(Utf8Text.Decode(spelling, position, out int length));
            if (value < 0)
            {
                spelling.CopyTo(destination);
                return spelling.Length;
            }

            destination[count++] = (byte)value;
            position += length;
        }

        return count;
    }
}
