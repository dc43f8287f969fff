using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>16 bytes of nibbles, value j below value j + 16, that index a table of 16 levels.</summary>
internal static class NibbleTable
{
    private const float Iq4CellWidth = 14;
    private const float Iq4FirstCell = -110.25f;

    /// <summary>ggml's <c>kvalues_iq4nl</c>.</summary>
    public static ReadOnlySpan<float> Iq4 => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    /// <summary>FP4 E2M1 doubled (ggml's <c>kvalues_mxfp4</c>); minus zero is stored as zero.</summary>
    public static ReadOnlySpan<float> Fp4 => [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

    /// <summary><see cref="Iq4"/> as integers.</summary>
    public static Vector128<sbyte> Iq4Integers => Vector128.Create(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

    /// <summary><see cref="Fp4"/> as integers.</summary>
    public static Vector128<sbyte> Fp4Integers => Vector128.Create(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

    /// <summary>Halfway between neighbours of <see cref="Iq4"/>: the k-th lies in the k-th of 15 cells of equal width, the outer two of which have no end.</summary>
    private static ReadOnlySpan<float> Iq4Bounds => [-115.5f, -93.5f, -74, -57, -42, -28.5f, -16, -4.5f, 7, 19, 31.5f, 45.5f, 61, 79, 101, float.PositiveInfinity];

    /// <summary>Index, as integer lanes, of the nearest level of <see cref="Iq4"/>; the upper of two that are equally near.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T NearestIq4<T>(T values) where T : unmanaged, ILanes<T>
    {
        T cell = T.ToInt(LaneMath.Clamp(T.MultiplyAdd(values, T.Broadcast(1 / Iq4CellWidth), T.Broadcast(-Iq4FirstCell / Iq4CellWidth)), 0, 14));
        return T.AddInt(T.AddInt(cell, T.BroadcastInt(1)), T.Greater(T.Lookup16(in Iq4Bounds[0], cell), values));
    }

    /// <summary>Decodes 16 bytes to 32 values <c>step * table[nibble]</c>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Decode<T>(ref readonly byte nibbles, ref readonly float table, float step, ref float values) where T : unmanaged, ILanes<T>
    {
        T factor = T.Broadcast(step);
        for (int j = 0; j < 16; j += T.Width)
        {
            T bytes = T.LoadBytes(ref Unsafe.Add(ref Unsafe.AsRef(in nibbles), j));
            T.Store(factor * T.Lookup16(in table, bytes & T.BroadcastInt(15)), ref Unsafe.Add(ref values, j));
            T.Store(factor * T.Lookup16(in table, T.ShiftRight(bytes, 4)), ref Unsafe.Add(ref values, j + 16));
        }
    }

    public static void Pack(ReadOnlySpan<byte> codes, Span<byte> nibbles)
    {
        for (int j = 0; j < 16; j++) nibbles[j] = (byte)(codes[j] | (codes[j + 16] << 4));
    }

    public static void Unpack(ReadOnlySpan<byte> nibbles, Span<byte> codes)
    {
        for (int j = 0; j < 16; j++) (codes[j], codes[j + 16]) = ((byte)(nibbles[j] & 15), (byte)(nibbles[j] >> 4));
    }
}
