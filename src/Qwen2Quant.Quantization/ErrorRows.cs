using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Quantization;

/// <summary>
/// Sums over one row in double precision. Value i goes to part i mod 16, and parts are folded in halves at the end: the result has the same bits at every
/// vector width.
/// </summary>
internal static class ErrorRows
{
    private const int Parts = 16;

    /// <summary>The sums of <c>(decoded - value)^2</c> and of <c>value^2</c>.</summary>
    public static (double Error, double Square) Sum(ReadOnlySpan<float> values, ReadOnlySpan<float> decoded) => Sum(Simd.Level, values, decoded);

    internal static (double Error, double Square) Sum(SimdLevel level, ReadOnlySpan<float> values, ReadOnlySpan<float> decoded)
    {
        decoded = decoded[..values.Length];
        Span<double> errors = stackalloc double[Parts];
        Span<double> squares = stackalloc double[Parts];
        errors.Clear();
        squares.Clear();
        int whole = level == SimdLevel.Scalar ? 0 : values.Length & -Parts;
        if (whole > 0)
        {
            ref float value = ref MemoryMarshal.GetReference(values);
            ref float other = ref MemoryMarshal.GetReference(decoded);
            if (level >= SimdLevel.Avx512) Sum512(ref value, ref other, whole, errors, squares);
            else if (level >= SimdLevel.Avx2) Sum256(ref value, ref other, whole, errors, squares);
            else Sum128(ref value, ref other, whole, errors, squares);
        }

        for (int i = whole; i < values.Length; i++)
        {
            double value = values[i];
            double difference = decoded[i] - value;
            errors[i % Parts] += difference * difference;
            squares[i % Parts] += value * value;
        }

        return (Fold(errors), Fold(squares));
    }

    // Products and sums are rounded apart: a fused multiply-add would differ from machines without one.
    private static void Sum512(ref float values, ref float decoded, int count, Span<double> errors, Span<double> squares)
    {
        Vector512<double> error0 = Vector512<double>.Zero, error1 = error0, square0 = error0, square1 = error0;
        for (int i = 0; i < count; i += Parts)
        {
            Vector512<double> value0 = Load512(ref values, i), value1 = Load512(ref values, i + 8);
            Vector512<double> difference0 = Avx512F.Subtract(Load512(ref decoded, i), value0);
            Vector512<double> difference1 = Avx512F.Subtract(Load512(ref decoded, i + 8), value1);
            error0 = Avx512F.Add(error0, Avx512F.Multiply(difference0, difference0));
            error1 = Avx512F.Add(error1, Avx512F.Multiply(difference1, difference1));
            square0 = Avx512F.Add(square0, Avx512F.Multiply(value0, value0));
            square1 = Avx512F.Add(square1, Avx512F.Multiply(value1, value1));
        }

        error0.CopyTo(errors);
        error1.CopyTo(errors[8..]);
        square0.CopyTo(squares);
        square1.CopyTo(squares[8..]);
    }

    // Two passes of eight values each: with sixteen the sums alone would take half the registers.
    private static void Sum256(ref float values, ref float decoded, int count, Span<double> errors, Span<double> squares)
    {
        for (int part = 0; part < Parts; part += 8)
        {
            Vector256<double> error0 = Vector256<double>.Zero, error1 = error0, square0 = error0, square1 = error0;
            for (int i = part; i < count; i += Parts)
            {
                Vector256<double> value0 = Load256(ref values, i), value1 = Load256(ref values, i + 4);
                Vector256<double> difference0 = Load256(ref decoded, i) - value0, difference1 = Load256(ref decoded, i + 4) - value1;
                error0 += difference0 * difference0;
                error1 += difference1 * difference1;
                square0 += value0 * value0;
                square1 += value1 * value1;
            }

            error0.CopyTo(errors[part..]);
            error1.CopyTo(errors[(part + 4)..]);
            square0.CopyTo(squares[part..]);
            square1.CopyTo(squares[(part + 4)..]);
        }
    }

    private static void Sum128(ref float values, ref float decoded, int count, Span<double> errors, Span<double> squares)
    {
        for (int part = 0; part < Parts; part += 4)
        {
            Vector128<double> error0 = Vector128<double>.Zero, error1 = error0, square0 = error0, square1 = error0;
            for (int i = part; i < count; i += Parts)
            {
                (Vector128<double> value0, Vector128<double> value1) = Vector128.Widen(Vector128.LoadUnsafe(ref values, (nuint)i));
                (Vector128<double> decoded0, Vector128<double> decoded1) = Vector128.Widen(Vector128.LoadUnsafe(ref decoded, (nuint)i));
                Vector128<double> difference0 = decoded0 - value0, difference1 = decoded1 - value1;
                error0 += difference0 * difference0;
                error1 += difference1 * difference1;
                square0 += value0 * value0;
                square1 += value1 * value1;
            }

            error0.CopyTo(errors[part..]);
            error1.CopyTo(errors[(part + 2)..]);
            square0.CopyTo(squares[part..]);
            square1.CopyTo(squares[(part + 2)..]);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<double> Load512(ref float source, int index) => Avx512F.ConvertToVector512Double(Vector256.LoadUnsafe(ref source, (nuint)index));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<double> Load256(ref float source, int index) => Avx.ConvertToVector256Double(Vector128.LoadUnsafe(ref source, (nuint)index));

    private static double Fold(Span<double> parts)
    {
        for (int half = Parts / 2; half > 0; half /= 2)
        {
            for (int i = 0; i < half; i++) parts[i] += parts[i + half];
        }

        return parts[0];
    }
}
