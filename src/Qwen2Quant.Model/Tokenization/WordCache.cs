using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Tokens of short pieces met before: direct-mapped, so bounded; a piece replaces the one in its slot. Not thread-safe.
/// </summary>
internal sealed class WordCache
{
    /// <summary>Bytes of the longest piece kept; the last byte of the 16-byte key is the length.</summary>
    public const int LongestPiece = 15;

    private const int SlotBits = 14;
    private const int MostTokens = 7;

    private readonly Slot[] _slots = new Slot[1 << SlotBits];

    [InlineArray(MostTokens)]
    private struct Tokens
    {
        private int _first;
    }

    private struct Slot
    {
        public Key Key;
        public int Count;
        public Tokens Tokens;
    }

    /// <summary>A piece of 1 to 15 bytes; never zero.</summary>
    public readonly record struct Key(ulong Low, ulong High)
    {
        /// <summary>The piece of <paramref name="length"/> bytes at <paramref name="start"/>.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Key Of(ReadOnlySpan<byte> text, int start, int length)
        {
            ulong low, high;
            if (start <= text.Length - 16)
            {
                low = BinaryPrimitives.ReadUInt64LittleEndian(text[start..]);
                high = BinaryPrimitives.ReadUInt64LittleEndian(text[(start + 8)..]);
            }
            else
            {
                Span<byte> bytes = stackalloc byte[16];
                bytes.Clear();
                text[start..].CopyTo(bytes);
                low = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
                high = BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]);
            }

            if (length < 8)
            {
                low &= (1UL << (8 * length)) - 1;
                high = 0;
            }
            else
            {
                high &= (1UL << (8 * (length - 8))) - 1;
            }

            return new Key(low, high | ((ulong)length << 56));
        }

        internal int Slot => (int)((((Low * 0x9E3779B97F4A7C15) ^ High) * 0xD6E8FEB86659FD93) >> (64 - SlotBits));
    }

    /// <summary>Appends the tokens of a piece that is kept.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryAppend(Key key, GrowingBuffer<int> output)
    {
        ref Slot slot = ref _slots[key.Slot];
        if (slot.Key != key) return false;
        if (slot.Count == 1) output.Add(slot.Tokens[0]);
        else output.Add(((ReadOnlySpan<int>)slot.Tokens)[..slot.Count]);
        return true;
    }

    public void Store(Key key, ReadOnlySpan<int> tokens)
    {
        if (tokens.Length > MostTokens) return;
        ref Slot slot = ref _slots[key.Slot];
        slot.Key = key;
        slot.Count = tokens.Length;
        tokens.CopyTo(slot.Tokens);
    }
}
