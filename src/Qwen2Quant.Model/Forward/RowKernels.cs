using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Model;

/// <summary>Element-wise steps of the forward pass over one row. A value's result does not depend on its place in the row.</summary>
internal static unsafe class RowKernels
{
    /// <summary>Replaces each value by <c>exp(value - maximum)</c> and returns the sum; relative error below 2e-7, arguments below -87 give at most 2e-38.</summary>
    public static float ExpAndSum(float* row, int count, float maximum) => ExpAndSum(row, count, maximum, Simd.Level);

    public static float ExpAndSum(float* row, int count, float maximum, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) return ExpAndSum<Lanes512>(row, count, maximum);
        if (level >= SimdLevel.Avx2) return ExpAndSum<Lanes256>(row, count, maximum);
        if (level >= SimdLevel.Vector128) return ExpAndSum<Lanes128>(row, count, maximum);
        return ExpAndSum<Lanes1>(row, count, maximum);
    }

    /// <summary>The greatest of at least one value that is not NaN.</summary>
    public static float Max(float* row, int count) => Max(row, count, Simd.Level);

    public static float Max(float* row, int count, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) return Max<Lanes512>(row, count);
        if (level >= SimdLevel.Avx2) return Max<Lanes256>(row, count);
        if (level >= SimdLevel.Vector128) return Max<Lanes128>(row, count);
        return Max<Lanes1>(row, count);
    }

    /// <summary><c>gate / (1 + exp(-gate)) up</c>.</summary>
    public static void SiluMultiply(float* gate, float* up, float* result, int count) => SiluMultiply(gate, up, result, count, Simd.Level);

    public static void SiluMultiply(float* gate, float* up, float* result, int count, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) SiluMultiply<Lanes512>(gate, up, result, count);
        else if (level >= SimdLevel.Avx2) SiluMultiply<Lanes256>(gate, up, result, count);
        else if (level >= SimdLevel.Vector128) SiluMultiply<Lanes128>(gate, up, result, count);
        else SiluMultiply<Lanes1>(gate, up, result, count);
    }

    /// <summary>
    /// Rotary position of one head, its halves turned against each other: <c>(x, y)</c> becomes <c>(x cos - y sin, y cos + x sin)</c>
    /// for value j of the first half and j of the second.
    /// </summary>
    /// <param name="half">Half the head's width.</param>
    public static void Rotate(float* head, float* cosine, float* sine, int half) => Rotate(head, cosine, sine, half, Simd.Level);

    public static void Rotate(float* head, float* cosine, float* sine, int half, SimdLevel level)
    {
        if (level >= SimdLevel.Avx512) Rotate<Lanes512>(head, cosine, sine, half);
        else if (level >= SimdLevel.Avx2) Rotate<Lanes256>(head, cosine, sine, half);
        else if (level >= SimdLevel.Vector128) Rotate<Lanes128>(head, cosine, sine, half);
        else Rotate<Lanes1>(head, cosine, sine, half);
    }

    private static float ExpAndSum<T>(float* row, int count, float maximum) where T : unmanaged, ILanes<T>
    {
        T shift = T.Broadcast(maximum);
        T sums = T.Broadcast(0);
        int i = 0;
        for (; i + T.Width <= count; i += T.Width)
        {
            T value = Exponential.Evaluate(T.Load(in row[i]) - shift);
            T.Store(value, ref row[i]);
            sums += value;
        }

        float sum = T.SumAcross(sums);
        if (i == count) return sum;
        float* rest = stackalloc float[16];
        Unsafe.CopyBlock(rest, row + i, (uint)(count - i) * sizeof(float));
        T.Store(Exponential.Evaluate(T.Load(in *rest) - shift), ref *rest);
        for (int j = 0; i + j < count; j++)
        {
            row[i + j] = rest[j];
            sum += rest[j];
        }

        return sum;
    }

    private static float Max<T>(float* row, int count) where T : unmanaged, ILanes<T>
    {
        float greatest = float.NegativeInfinity;
        int i = 0;
        if (count >= 4 * T.Width)
        {
            // Four chains, as one waits for its own last step.
            T a = T.Load(in row[0]), b = T.Load(in row[T.Width]), c = T.Load(in row[2 * T.Width]), d = T.Load(in row[3 * T.Width]);
            for (i = 4 * T.Width; i + (4 * T.Width) <= count; i += 4 * T.Width)
            {
                a = T.Max(a, T.Load(in row[i]));
                b = T.Max(b, T.Load(in row[i + T.Width]));
                c = T.Max(c, T.Load(in row[i + (2 * T.Width)]));
                d = T.Max(d, T.Load(in row[i + (3 * T.Width)]));
            }

            greatest = T.MaxAcross(T.Max(T.Max(a, b), T.Max(c, d)));
        }

        for (; i < count; i++)
        {
            if (row[i] > greatest) greatest = row[i];
        }

        return greatest;
    }

    private static void SiluMultiply<T>(float* gate, float* up, float* result, int count) where T : unmanaged, ILanes<T>
    {
        int i = 0;
        for (; i + T.Width <= count; i += T.Width) T.Store(Silu(T.Load(in gate[i]), T.Load(in up[i])), ref result[i]);
        if (i == count) return;
        float* rest = stackalloc float[32];
        uint bytes = (uint)(count - i) * sizeof(float);
        Unsafe.CopyBlock(rest, gate + i, bytes);
        Unsafe.CopyBlock(rest + 16, up + i, bytes);
        T.Store(Silu(T.Load(in *rest), T.Load(in rest[16])), ref *rest);
        Unsafe.CopyBlock(result + i, rest, bytes);
    }

    private static void Rotate<T>(float* head, float* cosine, float* sine, int half) where T : unmanaged, ILanes<T>
    {
        float* other = head + half;
        int i = 0;
        for (; i + T.Width <= half; i += T.Width)
        {
            T x = T.Load(in head[i]), y = T.Load(in other[i]), c = T.Load(in cosine[i]), s = T.Load(in sine[i]);
            T.Store((x * c) - (y * s), ref head[i]);
            T.Store((y * c) + (x * s), ref other[i]);
        }

        for (; i < half; i++)
        {
            (float x, float y) = (head[i], other[i]);
            head[i] = (x * cosine[i]) - (y * sine[i]);
            other[i] = (y * cosine[i]) + (x * sine[i]);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Silu<T>(T gate, T up) where T : unmanaged, ILanes<T>
    {
        T exp = Exponential.Evaluate(T.Min(T.Broadcast(Exponential.Largest), T.Broadcast(0) - gate));
        return gate * up / (T.Broadcast(1) + exp);
    }
}
