using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Core.Numerics;

/// <summary>One row by one panel of 16-bit floats, pairs of neighbouring depth in one lane: the sums of <see cref="MatrixProductAvx512.Row"/>.</summary>
internal static unsafe class SixteenBitProduct<TFormat> where TFormat : ISixteenBitFormat
{
    /// <param name="a">[2 <paramref name="pairCount"/>].</param>
    /// <param name="b">For each pair of depth 32 channels.</param>
    /// <param name="c">[32].</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row(float* a, float* b, int pairCount, float* c)
    {
        Lanes512 low = Lanes512.BroadcastInt(0xffff);
        Lanes512 sumX = Lanes512.Broadcast(0), sumY = Lanes512.Broadcast(0);
        for (int pair = 0; pair < pairCount; pair++)
        {
            Lanes512 x = Lanes512.Load(in b[0]), y = Lanes512.Load(in b[16]);
            Lanes512 first = Lanes512.Broadcast(a[2 * pair]), second = Lanes512.Broadcast(a[(2 * pair) + 1]);
            sumX = Lanes512.MultiplyAdd(first, TFormat.FromBits(x & low), sumX);
            sumY = Lanes512.MultiplyAdd(first, TFormat.FromBits(y & low), sumY);
            sumX = Lanes512.MultiplyAdd(second, TFormat.FromBits(Lanes512.ShiftRight(x, 16)), sumX);
            sumY = Lanes512.MultiplyAdd(second, TFormat.FromBits(Lanes512.ShiftRight(y, 16)), sumY);
            b += MatrixProduct.PanelWidth;
        }

        Lanes512.Store(sumX, ref c[0]);
        Lanes512.Store(sumY, ref c[16]);
    }
}
