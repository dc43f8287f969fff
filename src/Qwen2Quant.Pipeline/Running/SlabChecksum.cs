using System.Numerics;
using System.Runtime.InteropServices;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>
/// A 64-bit checksum that costs less than reading the bytes: it finds a disk or a writer that lost or moved bytes, and is no
/// defence against an adversary. Four independent lanes of multiply and rotate over 8-byte words, folded in order.
/// </summary>
internal static class SlabChecksum
{
    /// <summary>An odd constant with well spread bits: 2^64 over the golden ratio.</summary>
    private const ulong Multiplier = 0x9E3779B97F4A7C15;

    public static ulong Compute(ReadOnlySpan<byte> bytes)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(bytes);
        ulong a = 1, b = 2, c = 3, d = 4;
        int i = 0;
        for (; i + 4 <= words.Length; i += 4)
        {
            a = Mix(a, words[i]);
            b = Mix(b, words[i + 1]);
            c = Mix(c, words[i + 2]);
            d = Mix(d, words[i + 3]);
        }

        ulong sum = Mix(Mix(Mix(Mix((ulong)bytes.Length, a), b), c), d);
        for (; i < words.Length; i++) sum = Mix(sum, words[i]);
        foreach (byte rest in bytes[(words.Length * sizeof(ulong))..]) sum = Mix(sum, rest);
        return sum;
    }

    private static ulong Mix(ulong state, ulong word) => BitOperations.RotateLeft((state ^ word) * Multiplier, 29);
}
