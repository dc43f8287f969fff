using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>16 bytes of nibbles, value j below value j + 16, that index a table of 16 levels.</summary>
internal static class NibbleTable
{
    /// <summary>ggml's <c>kvalues_iq4nl</c>.</summary>
    public static ReadOnlySpan<float> Iq4 => [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    /// <summary>FP4 E2M1 doubled (ggml's <c>kvalues_mxfp4</c>); minus zero is stored as zero.</summary>
    public static ReadOnlySpan<float> Fp4 => [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

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
}
