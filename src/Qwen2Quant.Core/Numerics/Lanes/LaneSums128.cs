using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Four sums by portable 128-bit vectors.</summary>
public readonly struct LaneSums128(Vector128<double> low, Vector128<double> high) : ILaneSums<LaneSums128, Lanes128>
{
    private readonly Vector128<double> _low = low;
    private readonly Vector128<double> _high = high;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums128 Load(ref readonly double source) => new(Vector128.LoadUnsafe(in source), Vector128.LoadUnsafe(in source, 2));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(LaneSums128 sums, ref double destination)
    {
        sums._low.StoreUnsafe(ref destination);
        sums._high.StoreUnsafe(ref destination, 2);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums128 Add(LaneSums128 sums, Lanes128 lanes) => new(sums._low + Vector128.WidenLower(lanes.Value), sums._high + Vector128.WidenUpper(lanes.Value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums128 AddProduct(LaneSums128 sums, Lanes128 left, Lanes128 right) =>
        new(Vector128.FusedMultiplyAdd(Vector128.WidenLower(left.Value), Vector128.WidenLower(right.Value), sums._low), Vector128.FusedMultiplyAdd(Vector128.WidenUpper(left.Value), Vector128.WidenUpper(right.Value), sums._high));
}
