using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>The 12 bytes of eight 6-bit scales and minima of Q4_K and Q5_K (ggml's <c>get_scale_min_k4</c>).</summary>
internal static class SixBitScales
{
    /// <summary>Bytes 0 to 3 hold scales 0 to 3, bytes 4 to 7 minima 0 to 3, each under the top two bits of the one four later; bytes 8 to 11 the low nibbles of the others, scale below minimum.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (int Scale, int Minimum) At(ref readonly byte packed, int k)
    {
        ref byte bytes = ref Unsafe.AsRef(in packed);
        int a = Unsafe.Add(ref bytes, k & 3);
        int b = Unsafe.Add(ref bytes, (k & 3) + 4);
        if (k < 4) return (a & 63, b & 63);
        int low = Unsafe.Add(ref bytes, k + 4);
        return ((low & 15) | (a >> 6 << 4), (low >> 4) | (b >> 6 << 4));
    }

    /// <summary>The eight products <c>d * scale</c> and <c>-dmin * min</c> of a block that begins with d, dmin and the 12 bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Unpack(ref readonly byte block, ref float scales, ref float origins, int stride)
    {
        (float d, float dmin) = (Field.HalfAt(in block, 0), Field.HalfAt(in block, 2));
        for (int k = 0; k < 8; k++)
        {
            (int scale, int minimum) = At(ref Field.ByteAt(in block, 4), k);
            Unsafe.Add(ref scales, k * stride) = d * scale;
            Unsafe.Add(ref origins, k * stride) = -dmin * minimum;
        }
    }

    /// <summary>As <see cref="Unpack"/>, in one step.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe Vector256<float> Eight(byte* block, out Vector256<float> origins)
    {
        // Bytes 0 to 3, 4 to 7 and 8 to 11 of the twelve as whole numbers.
        (uint low, uint mid, uint high) = (*(uint*)(block + 4), *(uint*)(block + 8), *(uint*)(block + 12));
        ulong scaleBytes = (low & 0x3f3f3f3f) | ((ulong)((high & 0x0f0f0f0f) | ((low >> 2) & 0x30303030)) << 32);
        ulong minimumBytes = (mid & 0x3f3f3f3f) | ((ulong)(((high >> 4) & 0x0f0f0f0f) | ((mid >> 2) & 0x30303030)) << 32);
        Vector256<float> scales = Avx.ConvertToVector256Single(Avx2.ConvertToVector256Int32(Vector128.CreateScalarUnsafe(scaleBytes).AsByte()));
        Vector256<float> minima = Avx.ConvertToVector256Single(Avx2.ConvertToVector256Int32(Vector128.CreateScalarUnsafe(minimumBytes).AsByte()));
        origins = Vector256.Create(-Field.HalfAt(ref *block, 2)) * minima;
        return Vector256.Create(Field.HalfAt(ref *block, 0)) * scales;
    }

    /// <summary>The inverse of <see cref="At"/>: eight integers of 0 to 63 each.</summary>
    public static void Pack(ReadOnlySpan<float> scales, ReadOnlySpan<float> minima, Span<byte> packed)
    {
        for (int k = 0; k < 4; k++)
        {
            (int scale, int minimum) = ((int)scales[k + 4], (int)minima[k + 4]);
            packed[k] = (byte)((int)scales[k] | (scale >> 4 << 6));
            packed[k + 4] = (byte)((int)minima[k] | (minimum >> 4 << 6));
            packed[k + 8] = (byte)((scale & 15) | (minimum << 4));
        }
    }
}
