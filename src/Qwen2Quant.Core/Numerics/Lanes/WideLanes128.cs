using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Four doubles by portable 128-bit vectors.</summary>
public readonly struct WideLanes128(Vector128<double> low, Vector128<double> high) : IWideLanes<WideLanes128, Lanes128>
{
    private readonly Vector128<double> _low = low;
    private readonly Vector128<double> _high = high;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes128 Load(ref readonly double source) => new(Vector128.LoadUnsafe(in source), Vector128.LoadUnsafe(in source, 2));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(WideLanes128 value, ref double destination)
    {
        value._low.StoreUnsafe(ref destination);
        value._high.StoreUnsafe(ref destination, 2);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes128 Widen(Lanes128 lanes) => new(Vector128.WidenLower(lanes.Value), Vector128.WidenUpper(lanes.Value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes128 operator +(WideLanes128 left, WideLanes128 right) => new(left._low + right._low, left._high + right._high);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes128 MultiplyAdd(WideLanes128 left, WideLanes128 right, WideLanes128 addend) =>
        new(Vector128.FusedMultiplyAdd(left._low, right._low, addend._low), Vector128.FusedMultiplyAdd(left._high, right._high, addend._high));
}
