using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Little-endian fields of a block, at any alignment. The caller has checked that the block is whole.</summary>
internal static class Field
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float HalfAt(ref readonly byte block, int byteOffset)
    {
        uint bits = UShortAt(in block, byteOffset);
        // A normal half needs its exponent's bias moved from 15 to 127 and no more.
        if (((bits + 0x400) & 0x7c00) > 0x400) return BitConverter.UInt32BitsToSingle(((bits & 0x8000) << 16) | (((bits & 0x7fff) << 13) + (112u << 23)));
        return RareHalf(bits);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static float RareHalf(uint bits) => (float)BitConverter.UInt16BitsToHalf((ushort)bits);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ushort UShortAt(ref readonly byte block, int byteOffset) => Unsafe.ReadUnaligned<ushort>(in ByteAt(in block, byteOffset));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint UIntAt(ref readonly byte block, int byteOffset) => Unsafe.ReadUnaligned<uint>(in ByteAt(in block, byteOffset));

    public static void PutUShort(ushort value, Span<byte> block, int byteOffset) => BinaryPrimitives.WriteUInt16LittleEndian(block[byteOffset..], value);

    public static void PutUInt(uint value, Span<byte> block, int byteOffset) => BinaryPrimitives.WriteUInt32LittleEndian(block[byteOffset..], value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ref byte ByteAt(ref readonly byte block, int byteOffset) => ref Unsafe.Add(ref Unsafe.AsRef(in block), byteOffset);
}
