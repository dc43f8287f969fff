using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics;

/// <summary>16-bit floats that lie in the upper half of 32-bit lanes (AVX-512).</summary>
internal interface IUpperHalfFormat
{
    /// <param name="bits">The lower halves are zero.</param>
    static abstract Vector512<float> Widen(Vector512<int> bits);
}

/// <summary>Their bits are those of the float.</summary>
internal readonly struct UpperBFloat16 : IUpperHalfFormat
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Widen(Vector512<int> bits) => bits.AsSingle();
}

/// <summary>The bits move to their places under a sign that is spread below itself; a power of two mends the exponent, but for that of infinities and NaN.</summary>
internal readonly struct UpperHalf : IUpperHalfFormat
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Widen(Vector512<int> bits)
    {
        Vector512<int> special = Vector512.Create(0x7c000000);
        Vector512<int> moved = (bits >> 3) & Vector512.Create(unchecked((int)0x8fffe000));
        Vector512<int> value = Avx512F.Multiply(moved.AsSingle(), Vector512.Create(BitConverter.Int32BitsToSingle((127 + 112) << 23))).AsInt32();
        return Vector512.ConditionalSelect(Vector512.Equals(bits & special, special), value | Vector512.Create(0x7f800000), value).AsSingle();
    }
}

/// <summary>One row by one panel of 16-bit floats, pairs of neighbouring depth in one lane: the sums of <see cref="MatrixProductAvx512.Row"/>.</summary>
internal static unsafe class SixteenBitProduct<TFormat> where TFormat : IUpperHalfFormat
{
    /// <param name="a">[2 <paramref name="pairCount"/>].</param>
    /// <param name="b">For each pair of depth 32 channels.</param>
    /// <param name="c">[32].</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row(float* a, float* b, int pairCount, float* c)
    {
        Vector512<int> upper = Vector512.Create(unchecked((int)0xffff0000));
        Vector512<float> sumX = Vector512<float>.Zero, sumY = Vector512<float>.Zero;
        for (int pair = 0; pair < pairCount; pair++)
        {
            Vector512<int> x = Avx512F.LoadVector512((int*)b), y = Avx512F.LoadVector512((int*)b + 16);
            Vector512<float> first = Vector512.Create(a[2 * pair]), second = Vector512.Create(a[(2 * pair) + 1]);
            sumX = Avx512F.FusedMultiplyAdd(first, TFormat.Widen(x << 16), sumX);
            sumY = Avx512F.FusedMultiplyAdd(first, TFormat.Widen(y << 16), sumY);
            sumX = Avx512F.FusedMultiplyAdd(second, TFormat.Widen(x & upper), sumX);
            sumY = Avx512F.FusedMultiplyAdd(second, TFormat.Widen(y & upper), sumY);
            b += MatrixProduct.PanelWidth;
        }

        Avx512F.Store(c, sumX);
        Avx512F.Store(c + 16, sumY);
    }
}
