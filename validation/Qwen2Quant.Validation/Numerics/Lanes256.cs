using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>16 lanes in two AVX2 registers.</summary>
internal readonly unsafe struct Lanes256(Vector256<float> low, Vector256<float> high) : ILanes<Lanes256, Lanes256.Sums>
{
    private readonly Vector256<float> _low = low;
    private readonly Vector256<float> _high = high;

    /// <summary>8 doubles.</summary>
    internal readonly struct Sums(Vector256<double> low, Vector256<double> high)
    {
        public readonly Vector256<double> Low = low;
        public readonly Vector256<double> High = high;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Load(float* source) => new(Avx.LoadVector256(source), Avx.LoadVector256(source + 8));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes256 lanes, float* destination)
    {
        Avx.Store(destination, lanes._low);
        Avx.Store(destination + 8, lanes._high);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Sums sums, double* destination)
    {
        Avx.Store(destination, sums.Low);
        Avx.Store(destination + 4, sums.High);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Broadcast(float value) => new(Vector256.Create(value), Vector256.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Subtract(Lanes256 left, Lanes256 right) =>
        new(Avx.Subtract(left._low, right._low), Avx.Subtract(left._high, right._high));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Max(Lanes256 left, Lanes256 right) =>
        new(Avx.Max(left._low, right._low), Avx.Max(left._high, right._high));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 MultiplyAdd(Lanes256 left, Lanes256 right, Lanes256 addend) =>
        new(Fma.MultiplyAdd(left._low, right._low, addend._low), Fma.MultiplyAdd(left._high, right._high, addend._high));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 AddToExponent(Lanes256 value, Lanes256 steps) =>
        new(AddToExponent(value._low, steps._low), AddToExponent(value._high, steps._high));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddLow(Sums sums, Lanes256 lanes) => Add(sums, lanes._low);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddHigh(Sums sums, Lanes256 lanes) => Add(sums, lanes._high);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddProductLow(Sums sums, Lanes256 left, Lanes256 right) => AddProduct(sums, left._low, right._low);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddProductHigh(Sums sums, Lanes256 left, Lanes256 right) => AddProduct(sums, left._high, right._high);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> AddToExponent(Vector256<float> value, Vector256<float> steps) =>
        Avx2.Add(value.AsInt32(), Avx2.ShiftLeftLogical(steps.AsInt32(), 23)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Sums Add(Sums sums, Vector256<float> lanes) =>
        new(Avx.Add(sums.Low, Avx.ConvertToVector256Double(lanes.GetLower())), Avx.Add(sums.High, Avx.ConvertToVector256Double(lanes.GetUpper())));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Sums AddProduct(Sums sums, Vector256<float> left, Vector256<float> right) =>
        new(
            Fma.MultiplyAdd(Avx.ConvertToVector256Double(left.GetLower()), Avx.ConvertToVector256Double(right.GetLower()), sums.Low),
            Fma.MultiplyAdd(Avx.ConvertToVector256Double(left.GetUpper()), Avx.ConvertToVector256Double(right.GetUpper()), sums.High));
}
