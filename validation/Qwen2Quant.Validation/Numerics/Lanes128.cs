using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>16 lanes in four portable 128-bit vectors.</summary>
internal readonly unsafe struct Lanes128(Vector128<float> a, Vector128<float> b, Vector128<float> c, Vector128<float> d)
    : ILanes<Lanes128, Lanes128.Sums>
{
    private readonly Vector128<float> _a = a;
    private readonly Vector128<float> _b = b;
    private readonly Vector128<float> _c = c;
    private readonly Vector128<float> _d = d;

    /// <summary>8 doubles.</summary>
    internal readonly struct Sums(Vector128<double> a, Vector128<double> b, Vector128<double> c, Vector128<double> d)
    {
        public readonly Vector128<double> A = a;
        public readonly Vector128<double> B = b;
        public readonly Vector128<double> C = c;
        public readonly Vector128<double> D = d;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Load(float* source) =>
        new(Vector128.Load(source), Vector128.Load(source + 4), Vector128.Load(source + 8), Vector128.Load(source + 12));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes128 lanes, float* destination)
    {
        lanes._a.Store(destination);
        lanes._b.Store(destination + 4);
        lanes._c.Store(destination + 8);
        lanes._d.Store(destination + 12);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Sums sums, double* destination)
    {
        sums.A.Store(destination);
        sums.B.Store(destination + 2);
        sums.C.Store(destination + 4);
        sums.D.Store(destination + 6);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Broadcast(float value)
    {
        Vector128<float> all = Vector128.Create(value);
        return new Lanes128(all, all, all, all);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Subtract(Lanes128 left, Lanes128 right) =>
        new(left._a - right._a, left._b - right._b, left._c - right._c, left._d - right._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 Max(Lanes128 left, Lanes128 right) =>
        new(
            Vector128.MaxNative(left._a, right._a),
            Vector128.MaxNative(left._b, right._b),
            Vector128.MaxNative(left._c, right._c),
            Vector128.MaxNative(left._d, right._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 MultiplyAdd(Lanes128 left, Lanes128 right, Lanes128 addend) =>
        new(
            Vector128.FusedMultiplyAdd(left._a, right._a, addend._a),
            Vector128.FusedMultiplyAdd(left._b, right._b, addend._b),
            Vector128.FusedMultiplyAdd(left._c, right._c, addend._c),
            Vector128.FusedMultiplyAdd(left._d, right._d, addend._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes128 AddToExponent(Lanes128 value, Lanes128 steps) =>
        new(
            AddToExponent(value._a, steps._a),
            AddToExponent(value._b, steps._b),
            AddToExponent(value._c, steps._c),
            AddToExponent(value._d, steps._d));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddLow(Sums sums, Lanes128 lanes) => Add(sums, lanes._a, lanes._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddHigh(Sums sums, Lanes128 lanes) => Add(sums, lanes._c, lanes._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddProductLow(Sums sums, Lanes128 left, Lanes128 right) =>
        AddProduct(sums, left._a, left._b, right._a, right._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Sums AddProductHigh(Sums sums, Lanes128 left, Lanes128 right) =>
        AddProduct(sums, left._c, left._d, right._c, right._d);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> AddToExponent(Vector128<float> value, Vector128<float> steps) =>
        (value.AsInt32() + Vector128.ShiftLeft(steps.AsInt32(), 23)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Sums Add(Sums sums, Vector128<float> first, Vector128<float> second) =>
        new(
            sums.A + Vector128.WidenLower(first),
            sums.B + Vector128.WidenUpper(first),
            sums.C + Vector128.WidenLower(second),
            sums.D + Vector128.WidenUpper(second));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Sums AddProduct(
        Sums sums, Vector128<float> leftFirst, Vector128<float> leftSecond, Vector128<float> rightFirst, Vector128<float> rightSecond) =>
        new(
            Vector128.FusedMultiplyAdd(Vector128.WidenLower(leftFirst), Vector128.WidenLower(rightFirst), sums.A),
            Vector128.FusedMultiplyAdd(Vector128.WidenUpper(leftFirst), Vector128.WidenUpper(rightFirst), sums.B),
            Vector128.FusedMultiplyAdd(Vector128.WidenLower(leftSecond), Vector128.WidenLower(rightSecond), sums.C),
            Vector128.FusedMultiplyAdd(Vector128.WidenUpper(leftSecond), Vector128.WidenUpper(rightSecond), sums.D));
}
