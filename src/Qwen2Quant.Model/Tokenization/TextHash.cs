using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Hashes for the open-addressing tables. Seeded anew in every process, so that a file cannot be made whose entries all collide;
/// nothing that is written depends on them.
/// </summary>
internal static class TextHash
{
    private static readonly ulong Seed = (ulong)Random.Shared.NextInt64() | 1;

    public static uint Compute(ReadOnlySpan<byte> text)
    {
        ulong hash = Seed ^ (ulong)text.Length;
        while (text.Length >= 8)
        {
            hash = Mix(hash ^ BinaryPrimitives.ReadUInt64LittleEndian(text));
            text = text[8..];
        }

        ulong tail = 0;
        for (int i = 0; i < text.Length; i++) tail |= (ulong)text[i] << (8 * i);
        return (uint)Mix(hash ^ tail);
    }

    public static uint Compute(ulong key) => (uint)Mix(key ^ Seed);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Mix(ulong value)
    {
        const ulong GoldenRatio = 0x9E3779B97F4A7C15;
        ulong high = Math.BigMul(value ^ GoldenRatio, Seed ^ 0xD6E8FEB86659FD93, out ulong low);
        return high ^ low;
    }
}
