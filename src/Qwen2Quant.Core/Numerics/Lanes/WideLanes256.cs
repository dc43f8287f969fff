using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Eight doubles by AVX2 with FMA.</summary>
public readonly struct WideLanes256(Vector256<double> low, Vector256<double> high) : IWideLanes<WideLanes256, Lanes256>
{
    private readonly Vector256<double> _low = low;
    private readonly Vector256<double> _high = high;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes256 Load(ref readonly double source) => new(Vector256.LoadUnsafe(in source), Vector256.LoadUnsafe(in source, 4));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(WideLanes256 value, ref double destination)
    {
        value._low.StoreUnsafe(ref destination);
        value._high.StoreUnsafe(ref destination, 4);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes256 Widen(Lanes256 lanes) => new(Avx.ConvertToVector256Double(lanes.Value.GetLower()), Avx.ConvertToVector256Double(lanes.Value.GetUpper()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes256 operator +(WideLanes256 left, WideLanes256 right) => new(left._low + right._low, left._high + right._high);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes256 MultiplyAdd(WideLanes256 left, WideLanes256 right, WideLanes256 addend) =>
        new(Fma.MultiplyAdd(left._low, right._low, addend._low), Fma.MultiplyAdd(left._high, right._high, addend._high));
}
