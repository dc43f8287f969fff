using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Eight sums by AVX2 with FMA.</summary>
public readonly struct LaneSums256(Vector256<double> low, Vector256<double> high) : ILaneSums<LaneSums256, Lanes256>
{
    private readonly Vector256<double> _low = low;
    private readonly Vector256<double> _high = high;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums256 Load(ref readonly double source) => new(Vector256.LoadUnsafe(in source), Vector256.LoadUnsafe(in source, 4));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(LaneSums256 sums, ref double destination)
    {
        sums._low.StoreUnsafe(ref destination);
        sums._high.StoreUnsafe(ref destination, 4);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums256 Add(LaneSums256 sums, Lanes256 lanes) => new(Avx.Add(sums._low, Avx.ConvertToVector256Double(lanes.Value.GetLower())), Avx.Add(sums._high, Avx.ConvertToVector256Double(lanes.Value.GetUpper())));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums256 AddProduct(LaneSums256 sums, Lanes256 left, Lanes256 right) =>
        new(Fma.MultiplyAdd(Avx.ConvertToVector256Double(left.Value.GetLower()), Avx.ConvertToVector256Double(right.Value.GetLower()), sums._low), Fma.MultiplyAdd(Avx.ConvertToVector256Double(left.Value.GetUpper()), Avx.ConvertToVector256Double(right.Value.GetUpper()), sums._high));
}
