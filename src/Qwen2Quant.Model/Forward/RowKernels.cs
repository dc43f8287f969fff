using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>Element-wise steps of the forward pass over one row. A value's result does not depend on its place in the row.</summary>
internal static unsafe class RowKernels
{
    /// <summary>Replaces each value by <c>exp(value - maximum)</c> and returns the sum; relative error below 3e-7, arguments below -87 give at most 2e-38.</summary>
    public static float ExpAndSum(float* row, int count, float maximum) => ExpAndSum(row, count, maximum, Simd.Level);

    public static float ExpAndSum(float* row, int count, float maximum, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) return ExpAndSum<Lanes512, Vector512<float>>(row, count, maximum);
        if (level >= SimdLevel.Avx2) return ExpAndSum<Lanes256, Vector256<float>>(row, count, maximum);
        if (level >= SimdLevel.Vector128) return ExpAndSum<Lanes128, Vector128<float>>(row, count, maximum);
        return ExpAndSum<LanesScalar, float>(row, count, maximum);
    }

    /// <summary><c>gate / (1 + exp(-gate)) up</c>.</summary>
    public static void SiluMultiply(float* gate, float* up, float* result, int count) => SiluMultiply(gate, up, result, count, Simd.Level);

    public static void SiluMultiply(float* gate, float* up, float* result, int count, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) SiluMultiply<Lanes512, Vector512<float>>(gate, up, result, count);
        else if (level >= SimdLevel.Avx2) SiluMultiply<Lanes256, Vector256<float>>(gate, up, result, count);
        else if (level >= SimdLevel.Vector128) SiluMultiply<Lanes128, Vector128<float>>(gate, up, result, count);
        else SiluMultiply<LanesScalar, float>(gate, up, result, count);
    }

    /// <summary>
    /// Rotary position of one head, its halves turned against each other: <c>(x, y)</c> becomes <c>(x cos - y sin, y cos + x sin)</c>
    /// for value j of the first half and j of the second.
    /// </summary>
    /// <param name="half">Half the head's width.</param>
    public static void Rotate(float* head, float* cosine, float* sine, int half) => Rotate(head, cosine, sine, half, Simd.Level);

    public static void Rotate(float* head, float* cosine, float* sine, int half, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) Rotate<Lanes512, Vector512<float>>(head, cosine, sine, half);
        else if (level >= SimdLevel.Avx2) Rotate<Lanes256, Vector256<float>>(head, cosine, sine, half);
        else if (level >= SimdLevel.Vector128) Rotate<Lanes128, Vector128<float>>(head, cosine, sine, half);
        else Rotate<LanesScalar, float>(head, cosine, sine, half);
    }

    private static float ExpAndSum<TLanes, TVector>(float* row, int count, float maximum)
        where TLanes : struct, IFloatLanes<TVector>
        where TVector : struct
    {
        TVector shift = TLanes.Create(maximum);
        TVector sums = TLanes.Create(0);
        int i = 0;
        for (; i + TLanes.Count <= count; i += TLanes.Count)
        {
            TVector value = Exp<TLanes, TVector>(TLanes.Subtract(TLanes.Load(row + i), shift));
            TLanes.Store(value, row + i);
            sums = TLanes.Add(sums, value);
        }

        float sum = TLanes.Sum(sums);
        if (i == count) return sum;
        float* rest = stackalloc float[16];
        Unsafe.CopyBlock(rest, row + i, (uint)(count - i) * sizeof(float));
        TLanes.Store(Exp<TLanes, TVector>(TLanes.Subtract(TLanes.Load(rest), shift)), rest);
        for (int j = 0; i + j < count; j++)
        {
            row[i + j] = rest[j];
            sum += rest[j];
        }

        return sum;
    }

    private static void SiluMultiply<TLanes, TVector>(float* gate, float* up, float* result, int count)
        where TLanes : struct, IFloatLanes<TVector>
        where TVector : struct
    {
        int i = 0;
        for (; i + TLanes.Count <= count; i += TLanes.Count) TLanes.Store(Silu<TLanes, TVector>(TLanes.Load(gate + i), TLanes.Load(up + i)), result + i);
        if (i == count) return;
        float* rest = stackalloc float[32];
        uint bytes = (uint)(count - i) * sizeof(float);
        Unsafe.CopyBlock(rest, gate + i, bytes);
        Unsafe.CopyBlock(rest + 16, up + i, bytes);
        TLanes.Store(Silu<TLanes, TVector>(TLanes.Load(rest), TLanes.Load(rest + 16)), rest);
        Unsafe.CopyBlock(result + i, rest, bytes);
    }

    private static void Rotate<TLanes, TVector>(float* head, float* cosine, float* sine, int half)
        where TLanes : struct, IFloatLanes<TVector>
        where TVector : struct
    {
        float* other = head + half;
        int i = 0;
        for (; i + TLanes.Count <= half; i += TLanes.Count)
        {
            TVector x = TLanes.Load(head + i), y = TLanes.Load(other + i), c = TLanes.Load(cosine + i), s = TLanes.Load(sine + i);
            TLanes.Store(TLanes.Subtract(TLanes.Multiply(x, c), TLanes.Multiply(y, s)), head + i);
            TLanes.Store(TLanes.Add(TLanes.Multiply(y, c), TLanes.Multiply(x, s)), other + i);
        }

        for (; i < half; i++)
        {
            (float x, float y) = (head[i], other[i]);
            head[i] = (x * cosine[i]) - (y * sine[i]);
            other[i] = (y * cosine[i]) + (x * sine[i]);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static TVector Silu<TLanes, TVector>(TVector gate, TVector up)
        where TLanes : struct, IFloatLanes<TVector>
        where TVector : struct
    {
        TVector exp = Exp<TLanes, TVector>(TLanes.Subtract(TLanes.Create(0), gate));
        return TLanes.Divide(TLanes.Multiply(gate, up), TLanes.Add(TLanes.Create(1), exp));
    }

    // exp(x) = 2^n exp(r), r within half of ln 2, by the polynomial of Cephes' expf; ln 2 in two parts. NaN stays NaN.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static TVector Exp<TLanes, TVector>(TVector x)
        where TLanes : struct, IFloatLanes<TVector>
        where TVector : struct
    {
        x = TLanes.Clamp(x, TLanes.Create(-87.3f), TLanes.Create(88f));
        TVector n = TLanes.Round(TLanes.Multiply(x, TLanes.Create(1.44269504088896341f)));
        TVector r = TLanes.MultiplyAdd(n, TLanes.Create(-0.693359375f), x);
        r = TLanes.MultiplyAdd(n, TLanes.Create(2.12194440e-4f), r);
        TVector p = TLanes.MultiplyAdd(TLanes.Create(1.9875691500e-4f), r, TLanes.Create(1.3981999507e-3f));
        p = TLanes.MultiplyAdd(p, r, TLanes.Create(8.3334519073e-3f));
        p = TLanes.MultiplyAdd(p, r, TLanes.Create(4.1665795894e-2f));
        p = TLanes.MultiplyAdd(p, r, TLanes.Create(1.6666665459e-1f));
        p = TLanes.MultiplyAdd(p, r, TLanes.Create(5.0000001201e-1f));
        p = TLanes.MultiplyAdd(p, TLanes.Multiply(r, r), TLanes.Add(r, TLanes.Create(1)));
        return TLanes.ScaleByPowerOfTwo(p, n);
    }
}
