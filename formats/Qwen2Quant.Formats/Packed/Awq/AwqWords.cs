using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Qwen2Quant.Formats.Packed.Awq;

/// <summary>
/// Words of 8 outputs: nibble k holds output <c>8 c + order[k]</c> of word c, with the order 0 2 4 6 1 3 5 7 of AutoAWQ's GEMM version. Reversing the order is a
/// permutation of nibbles: 0 4 1 5 2 6 3 7.
/// </summary>
internal static class AwqWords
{
    /// <summary>Outputs of a word.</summary>
    public const int Outputs = 8;

    /// <summary>The nibbles of a word in the order of outputs.</summary>
    public static uint ToNatural(uint word)
    {
        // Even outputs are the lower half, odd ones the upper: spread each over every second nibble.
        return Spread(word & 0xFFFF) | (Spread(word >> 16) << 4);
    }

    /// <summary>The inverse.</summary>
    public static uint FromNatural(uint nibbles) => Gather(nibbles) | (Gather(nibbles >> 4) << 16);

    /// <summary>Codes of one input each to rows: <paramref name="lines"/> is [inputs, words], <paramref name="rows"/> whole rows of blocks, whose codes are set.</summary>
    public static void ToRows(IntegerGridType type, ReadOnlySpan<uint> lines, int rowLength, int rowCount, Span<byte> rows)
    {
        int wordCount = rowCount / Outputs, rowBytes = rows.Length / rowCount;
        Span<uint> square = stackalloc uint[Outputs];
        for (int group = 0; group < rowLength / type.GroupLength; group++)
        {
            for (int word = 0; word < wordCount; word++)
            {
                // Four bytes of eight rows at a time: eight inputs.
                for (int input = 0; input < type.GroupLength; input += Outputs)
                {
                    for (int i = 0; i < Outputs; i++) square[i] = ToNatural(lines[(((group * type.GroupLength) + input + i) * wordCount) + word]);
                    Transpose(square);
                    int offset = (group * type.BytesPerBlock) + type.CodesOffset + (input / 2);
                    for (int row = 0; row < Outputs; row++) BinaryPrimitives.WriteUInt32LittleEndian(rows[((((word * Outputs) + row) * rowBytes) + offset)..], square[row]);
                }
            }
        }
    }

    /// <summary>The inverse of <see cref="ToRows"/>.</summary>
    public static void ToLines(IntegerGridType type, ReadOnlySpan<byte> rows, int rowLength, int rowCount, Span<uint> lines)
    {
        int wordCount = rowCount / Outputs, rowBytes = rows.Length / rowCount;
        Span<uint> square = stackalloc uint[Outputs];
        for (int group = 0; group < rowLength / type.GroupLength; group++)
        {
            for (int word = 0; word < wordCount; word++)
            {
                for (int input = 0; input < type.GroupLength; input += Outputs)
                {
                    int offset = (group * type.BytesPerBlock) + type.CodesOffset + (input / 2);
                    for (int row = 0; row < Outputs; row++) square[row] = MemoryMarshal.Read<uint>(rows[((((word * Outputs) + row) * rowBytes) + offset)..]);
                    Transpose(square);
                    for (int i = 0; i < Outputs; i++) lines[(((group * type.GroupLength) + input + i) * wordCount) + word] = FromNatural(square[i]);
                }
            }
        }
    }

    /// <summary>Turns 8 x 8 nibbles about their diagonal.</summary>
    private static void Transpose(Span<uint> square)
    {
        Swap(square, 4, 0x0000FFFF);
        Swap(square, 2, 0x00FF00FF);
        Swap(square, 1, 0x0F0F0F0F);

        static void Swap(Span<uint> square, int distance, uint mask)
        {
            int shift = 4 * distance;
            for (int i = 0; i < Outputs; i++)
            {
                if ((i & distance) != 0) continue;
                uint difference = ((square[i] >> shift) ^ square[i + distance]) & mask;
                square[i + distance] ^= difference;
                square[i] ^= difference << shift;
            }
        }
    }

    private static uint Spread(uint nibbles)
    {
        nibbles = (nibbles | (nibbles << 8)) & 0x00FF00FF;
        return (nibbles | (nibbles << 4)) & 0x0F0F0F0F;
    }

    private static uint Gather(uint nibbles)
    {
        nibbles &= 0x0F0F0F0F;
        nibbles = (nibbles | (nibbles >> 4)) & 0x00FF00FF;
        return (nibbles | (nibbles >> 8)) & 0x0000FFFF;
    }
}
