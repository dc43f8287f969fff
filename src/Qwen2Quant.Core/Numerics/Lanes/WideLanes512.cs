using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Sixteen doubles by AVX-512.</summary>
public readonly struct WideLanes512(Vector512<double> low, Vector512<double> high) : IWideLanes<WideLanes512, Lanes512>
{
    private readonly Vector512<double> _low = low;
    private readonly Vector512<double> _high = high;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes512 Load(ref readonly double source) => new(Vector512.LoadUnsafe(in source), Vector512.LoadUnsafe(in source, 8));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(WideLanes512 value, ref double destination)
    {
        value._low.StoreUnsafe(ref destination);
        value._high.StoreUnsafe(ref destination, 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes512 Widen(Lanes512 lanes) => new(Avx512F.ConvertToVector512Double(lanes.Value.GetLower()), Avx512F.ConvertToVector512Double(lanes.Value.GetUpper()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes512 operator +(WideLanes512 left, WideLanes512 right) => new(left._low + right._low, left._high + right._high);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static WideLanes512 MultiplyAdd(WideLanes512 left, WideLanes512 right, WideLanes512 addend) =>
        new(Avx512F.FusedMultiplyAdd(left._low, right._low, addend._low), Avx512F.FusedMultiplyAdd(left._high, right._high, addend._high));
}
