using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// Unsigned fields of 2, 3, 4, 5, 6 or 8 bits as one stream of bits, least significant first: value k lies in bits k x bits to k x bits + bits - 1. Read as 32-bit words
/// this is how GPTQ, compressed-tensors and MLX pack values, also where fields of 3 bits straddle words.
/// </summary>
internal static class BitFields
{
    /// <summary>Fields that fill whole bytes at every width.</summary>
    public const int Run = 8;

    /// <summary>Fields that fill whole words at every width.</summary>
    public const int WordRun = 32;

    private const ulong EachByte = 0x0101010101010101;

    /// <param name="fields">A multiple of <see cref="Run"/>, one byte each.</param>
    public static void Unpack(ReadOnlySpan<byte> packed, int bits, Span<byte> fields)
    {
        if (bits == 8)
        {
            packed[..fields.Length].CopyTo(fields);
            return;
        }

        ulong mask = ((1ul << bits) - 1) * EachByte;
        for (int i = 0, at = 0; i < fields.Length; i += Run, at += bits)
        {
            ulong stream = bits switch
            {
                2 => BinaryPrimitives.ReadUInt16LittleEndian(packed[at..]),
                3 => BinaryPrimitives.ReadUInt16LittleEndian(packed[at..]) | ((uint)packed[at + 2] << 16),
                4 => BinaryPrimitives.ReadUInt32LittleEndian(packed[at..]),
                5 => BinaryPrimitives.ReadUInt32LittleEndian(packed[at..]) | ((ulong)packed[at + 4] << 32),
                _ => BinaryPrimitives.ReadUInt32LittleEndian(packed[at..]) | ((ulong)BinaryPrimitives.ReadUInt16LittleEndian(packed[(at + 4)..]) << 32),
            };
            BinaryPrimitives.WriteUInt64LittleEndian(fields[i..], Spread(stream, bits, mask));
        }
    }

    /// <param name="fields">A multiple of <see cref="Run"/>, one byte each, below 2^<paramref name="bits"/>.</param>
    public static void Pack(ReadOnlySpan<byte> fields, int bits, Span<byte> packed)
    {
        if (bits == 8)
        {
            fields.CopyTo(packed);
            return;
        }

        ulong mask = ((1ul << bits) - 1) * EachByte;
        for (int i = 0, at = 0; i < fields.Length; i += Run, at += bits)
        {
            ulong stream = Gather(BinaryPrimitives.ReadUInt64LittleEndian(fields[i..]), bits, mask);
            for (int b = 0; b < bits; b++) packed[at + b] = (byte)(stream >> (8 * b));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Spread(ulong stream, int bits, ulong mask)
    {
        if (Bmi2.X64.IsSupported) return Bmi2.X64.ParallelBitDeposit(stream, mask);
        ulong fields = 0;
        for (int i = 0; i < Run; i++) fields |= ((stream >> (bits * i)) & (mask & 0xff)) << (8 * i);
        return fields;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Gather(ulong fields, int bits, ulong mask)
    {
        if (Bmi2.X64.IsSupported) return Bmi2.X64.ParallelBitExtract(fields, mask);
        ulong stream = 0;
        for (int i = 0; i < Run; i++) stream |= ((fields >> (8 * i)) & (mask & 0xff)) << (bits * i);
        return stream;
    }
}
