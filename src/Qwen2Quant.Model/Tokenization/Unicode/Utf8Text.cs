using System.Runtime.CompilerServices;

namespace Qwen2Quant.Model.Tokenization.Unicode;

/// <summary>Decoding of UTF-8 that is known to be valid.</summary>
internal static class Utf8Text
{
    /// <summary>The code point at <paramref name="position"/>, the first byte of a character.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Decode(ReadOnlySpan<byte> text, int position, out int byteLength)
    {
        int lead = text[position];
        if (lead < 0x80)
        {
            byteLength = 1;
            return lead;
        }

        if (lead < 0xE0)
        {
            byteLength = 2;
            return ((lead & 0x1F) << 6) | (text[position + 1] & 0x3F);
        }

        if (lead < 0xF0)
        {
            byteLength = 3;
            return ((lead & 0x0F) << 12) | ((text[position + 1] & 0x3F) << 6) | (text[position + 2] & 0x3F);
        }

        byteLength = 4;
        return ((lead & 0x07) << 18) | ((text[position + 1] & 0x3F) << 12) | ((text[position + 2] & 0x3F) << 6) | (text[position + 3] & 0x3F);
    }

    /// <summary>Writes a code point and returns its length in bytes, 1 to 4.</summary>
    public static int Encode(int character, Span<byte> destination)
    {
        if (character < 0x80)
        {
            destination[0] = (byte)character;
            return 1;
        }

        if (character < 0x800)
        {
            destination[0] = (byte)(0xC0 | (character >> 6));
            destination[1] = (byte)(0x80 | (character & 0x3F));
            return 2;
        }

        if (character < 0x10000)
        {
            destination[0] = (byte)(0xE0 | (character >> 12));
            destination[1] = (byte)(0x80 | ((character >> 6) & 0x3F));
            destination[2] = (byte)(0x80 | (character & 0x3F));
            return 3;
        }

        destination[0] = (byte)(0xF0 | (character >> 18));
        destination[1] = (byte)(0x80 | ((character >> 12) & 0x3F));
        destination[2] = (byte)(0x80 | ((character >> 6) & 0x3F));
        destination[3] = (byte)(0x80 | (character & 0x3F));
        return 4;
    }
}
