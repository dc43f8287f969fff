using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Validation.Numerics;

/// <summary>16 lanes in one AVX-512 register.</summary>
internal readonly unsafe struct Lanes512(Vector512<float> value) : ILanes<Lanes512, Vector512<double>>
{
    private readonly Vector512<float> _value = value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Load(float* source) => new(Avx512F.LoadVector512(source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes512 lanes, float* destination) => Avx512F.Store(destination, lanes._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Vector512<double> sums, double* destination) => Avx512F.Store(destination, sums);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Broadcast(float value) => new(Vector512.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Subtract(Lanes512 left, Lanes512 right) => new(Avx512F.Subtract(left._value, right._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 Max(Lanes512 left, Lanes512 right) => new(Avx512F.Max(left._value, right._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 MultiplyAdd(Lanes512 left, Lanes512 right, Lanes512 addend) =>
        new(Avx512F.FusedMultiplyAdd(left._value, right._value, addend._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes512 AddToExponent(Lanes512 value, Lanes512 steps) =>
        new(Avx512F.Add(value._value.AsInt32(), Avx512F.ShiftLeftLogical(steps._value.AsInt32(), 23)).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<double> AddLow(Vector512<double> sums, Lanes512 lanes) => Avx512F.Add(sums, Low(lanes));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<double> AddHigh(Vector512<double> sums, Lanes512 lanes) => Avx512F.Add(sums, High(lanes));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<double> AddProductLow(Vector512<double> sums, Lanes512 left, Lanes512 right) =>
        Avx512F.FusedMultiplyAdd(Low(left), Low(right), sums);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<double> AddProductHigh(Vector512<double> sums, Lanes512 left, Lanes512 right) =>
        Avx512F.FusedMultiplyAdd(High(left), High(right), sums);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<double> Low(Lanes512 lanes) => Avx512F.ConvertToVector512Double(lanes._value.GetLower());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<double> High(Lanes512 lanes) => Avx512F.ConvertToVector512Double(lanes._value.GetUpper());
}
